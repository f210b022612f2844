// Recent steps as columns: what each took of its token budget, how long, and what it left held.

import { html, svg } from "./elements.js";

const COLUMN = 9; // px, a gap of 2 included
const NUM_COLOURS = 6;
const TOP = 18; // px above each row, for its name

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const used = (step) => step.num_decoding + sum(step.prompt_slices.map(([, count]) => count));
const whole = (value) => value.toLocaleString("en");
const percent = (share) => `${(100 * share).toFixed(0)} %`;
const isMeasured = (step) => step.bandwidth_share !== null;
const colour = (sequence) => `slice-${sequence % NUM_COLOURS}`;

/**
 * The rows below one another: name, height, and the stacked parts of a step's column. A row that is
 * `of` some steps only is there once one of them is shown.
 */
const ROWS = [
  {
    name: (most, step) => `tokens, up to ${whole(most)} of a budget of ${whole(step.token_budget)}`,
    height: 180,
    parts: (step) => [
      ["decoding", step.num_decoding],
      ...step.prompt_slices.map(([sequence, count]) => [colour(sequence), count]),
    ],
    least: 16,
  },
  { name: (most) => `time, up to ${most.toFixed(1)} ms`, height: 46, parts: (step) => [["time", 1000 * step.duration_s]] },
  {
    name: (most) => `memory bandwidth, up to ${percent(most)} of the machine's`,
    height: 46,
    parts: (step) => [["bandwidth", step.bandwidth_share ?? 0]],
    least: 1,
    of: isMeasured,
  },
  {
    name: (most) => `arithmetic, up to ${percent(most)} of the machine's`,
    height: 46,
    parts: (step) => [["arithmetic", step.arithmetic_share ?? 0]],
    least: 1,
    of: isMeasured,
  },
  {
    name: (most, step, numBlocks) => `KV blocks in use, up to ${whole(most)} of ${whole(numBlocks)}`,
    height: 46,
    parts: (step) => [["blocks", step.num_blocks_used]],
    least: 1,
  },
  { name: (most) => `waiting, up to ${whole(most)}`, height: 32, parts: (step) => [["queue", step.num_waiting]], least: 4 },
];

export class StepChart {
  isPaused = false;
  #steps = [];
  #chosen = null; // the number of a step; null follows the newest
  #numBlocks = 0;
  #frame = null; // in which what came is drawn

  constructor(place, detail) {
    this.place = place;
    this.detail = detail;
    place.addEventListener("pointermove", (event) => this.#choose(this.#at(event)));
    place.addEventListener("pointerleave", () => this.#choose(null));
    place.addEventListener("keydown", (event) => this.#walk(event));
    new ResizeObserver(() => this.#draw()).observe(place);
  }

  add(steps, numBlocks) {
    this.#numBlocks = numBlocks;
    if (this.isPaused || !steps.length) return;
    if (steps[0].number <= this.#steps.at(-1)?.number) this.clear(); // a new engine
    this.#steps = [...this.#steps, ...steps].slice(-512);
    this.#drawSoon();
  }

  clear() {
    this.#steps = [];
    this.#chosen = null;
    this.#draw();
  }

  get #shown() {
    return this.#steps.slice(-Math.max(1, Math.floor(this.place.clientWidth / COLUMN)));
  }

  #at(event) {
    const x = event.clientX - this.place.getBoundingClientRect().left;
    return this.#shown[Math.floor(x / COLUMN)]?.number ?? null;
  }

  #choose(number) {
    this.#chosen = number;
    this.#draw();
  }

  #walk(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (!move) return;
    event.preventDefault();
    const steps = this.#shown;
    const found = steps.findIndex(({ number }) => number === this.#chosen);
    const at = (found < 0 ? steps.length - 1 : found) + move;
    this.#choose(steps[Math.max(0, Math.min(steps.length - 1, at))]?.number ?? null);
  }

  /** Once a frame at most: on a busy machine events come faster than they are drawn, and whoever drew
   * each of them would get to nothing else. */
  #drawSoon() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      this.#draw();
    });
  }

  #draw() {
    const steps = this.#shown;
    if (!steps.length) {
      this.place.replaceChildren(html("p", { class: "hint" }, "No steps yet. They appear as soon as the engine has work."));
      this.detail.replaceChildren();
      return;
    }
    const chosen = steps.find(({ number }) => number === this.#chosen) ?? steps.at(-1);
    let top = 0;
    const rows = ROWS.filter(({ of = () => true }) => steps.some(of)).map((row) => {
      const drawn = this.#row(row, steps, top + TOP);
      top += TOP + row.height + 6;
      return drawn;
    });
    const mark = { class: "mark", x: steps.indexOf(chosen) * COLUMN - 1, y: 0, width: COLUMN, height: top };
    const chart = { width: this.place.clientWidth, height: top, "aria-hidden": "true" };
    this.place.replaceChildren(svg("svg", chart, svg("rect", mark), ...rows));
    this.detail.replaceChildren(...this.#told(chosen));
  }

  #row({ name, height, parts, least = 0 }, steps, top) {
    const columns = steps.map(parts);
    const most = Math.max(least, ...columns.map((column) => sum(column.map(([, count]) => count))));
    const bars = columns.flatMap((column, at) => {
      let bottom = top + height;
      return column.filter(([, count]) => count).map(([kind, count]) => {
        const share = Math.max(1, (count / most) * height);
        bottom -= share;
        return svg("rect", { class: kind, x: at * COLUMN, y: bottom, width: COLUMN - 2, height: share });
      });
    });
    const floor = { class: "floor", x: 0, y: top + height, width: this.place.clientWidth, height: 1 };
    const title = svg("text", { x: 0, y: top - 5 }, name(most, steps.at(-1), this.#numBlocks));
    return svg("g", {}, svg("rect", floor), ...bars, title);
  }

  #told(step) {
    const left = step.token_budget - used(step);
    const parts = [
      ["decoding", step.num_decoding, "decoding"],
      ...step.prompt_slices.map(([sequence, count]) => [colour(sequence), count, `of prompt ${sequence + 1}`]),
      ["unused", left, "unused"],
    ].filter(([, count]) => count);
    const words = [
      `Step ${whole(step.number)}${step.replica === null ? "" : ` (replica ${step.replica})`}`,
      `${(1000 * step.duration_s).toFixed(1)} ms`,
      `${whole(step.num_running)} running, ${whole(step.num_waiting)} waiting`,
      `${whole(step.num_blocks_used)} KV blocks`,
      `${(step.num_bytes_read / 1e6).toFixed(1)} MB read`,
    ];
    if (isMeasured(step)) {
      words.push(`${percent(step.bandwidth_share)} of the memory bandwidth`, `${percent(step.arithmetic_share)} of the arithmetic`);
    }
    const bar = parts.map(([kind, count]) => {
      const part = html("span", { class: kind });
      part.style.flexGrow = count;
      return part;
    });
    return [
      html("p", {}, words.join(" · ")),
      html("div", { class: "budget", "aria-hidden": "true" }, ...bar),
      html("ul", { class: "legend" }, ...parts.map(([kind, count, what]) =>
        html("li", {}, html("i", { class: kind }), `${whole(count)} ${what}`))),
    ];
  }
}
