// The live view: the engine's own account of its steps, while somebody looks.

import { byId, html, tell } from "./elements.js";
import { ask, events } from "./server.js";
import { StepChart } from "./step_chart.js";

const WINDOW_MS = 5000; // rates and latencies are of the last seconds
const PAUSE_MS = 2000;

const whole = (value) => Math.round(value).toLocaleString("en");
const percent = (part, all) => (all ? `${((100 * part) / all).toFixed(0)} %` : "–");

/** What is shown on top: a value and a detail, told from the newest state and an older one. */
const TILES = {
  Running: ({ stats }) => [whole(stats.num_running), `${whole(stats.num_waiting)} waiting`],
  "Tokens/s": (now, old) => [
    whole(rate(now, old, "num_generated_tokens")),
    `${whole(rate(now, old, "num_prompt_tokens"))} prompt/s`,
  ],
  "KV blocks": ({ stats: { num_blocks_used: used, num_blocks: all } }) => [
    percent(used, all),
    `${whole(used)} of ${whole(all)}`,
  ],
  "Prefix hits": ({ stats }) => [
    percent(stats.prefix_hits, stats.prefix_queries),
    `${whole(stats.prefix_hits)} tokens`,
  ],
  "First token": (now, old) => spread(now, old, "time_to_first_token"),
  "Next token": (now, old) => spread(now, old, "inter_token_latency"),
  "Memory read": (now, old) => {
    const read = rate(now, old, "num_bytes_read");
    const limit = now.stats.limit_bytes_per_s; // 0 where it was not measured
    return [`${(read / 1e9).toFixed(1)} GB/s`, limit ? `${percent(read, limit)} of the limit` : ""];
  },
  Preemptions: ({ stats }) => [
    whole(stats.num_preemptions),
    `${whole(stats.num_recomputed_tokens)} recomputed`,
  ],
};

/** Bring the view to life; the result shows or hides it. `onRefused`: the server wants a key. */
export function startLive(onRefused) {
  const chart = new StepChart(byId("steps"), byId("step"));
  const tiles = Object.entries(TILES).map(([name, tell]) => {
    const shown = [html("dd", {}, "–"), html("dd", { class: "hint" })];
    byId("tiles").append(html("div", { class: "card" }, html("dt", {}, name), ...shown));
    return (now, old) => tell(now, old).forEach((text, at) => (shown[at].textContent = text));
  });
  const seen = []; // events of the last seconds
  let watching = null;

  function take(event) {
    const now = { ...event, at: performance.now() };
    if (now.stats.num_steps < seen.at(-1)?.stats.num_steps) seen.length = 0; // a new engine
    seen.push(now);
    while (now.at - seen[0].at > WINDOW_MS) seen.shift();
    for (const show of tiles) show(now, seen[0]);
    tell(byId("live-problem"), problem(now));
    chart.add(now.steps, Math.round(now.stats.num_blocks / now.num_replicas));
  }

  async function watch(signal) {
    while (!signal.aborted) {
      try {
        for await (const event of events(await ask("live/steps", { signal }), signal)) take(event);
      } catch (error) {
        if (signal.aborted) return;
        tell(byId("live-problem"), error.message);
        if (error.status === 401) return onRefused(error.message);
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  byId("pause").addEventListener("click", ({ target }) => {
    chart.isPaused = !chart.isPaused;
    target.setAttribute("aria-pressed", String(chart.isPaused));
  });
  return (isShown) => {
    watching?.abort();
    watching = isShown ? new AbortController() : null;
    if (!isShown) return;
    seen.length = 0;
    chart.clear();
    watch(watching.signal);
  };
}

function problem({ is_ready: isReady, num_ready: numReady, num_replicas: all }) {
  if (!isReady) return "The engine is not ready.";
  return numReady < all ? `${numReady} of ${all} replicas are ready.` : "";
}

/** By how much a counter grows in a second. */
function rate(now, old, counter) {
  const seconds = (now.at - old.at) / 1000;
  return seconds ? (now.stats[counter] - old.stats[counter]) / seconds : 0;
}

function spread(now, old, name) {
  const before = old.latencies[name];
  const counts = now.latencies[name].map(([bound, count], at) => [bound, count - before[at][1]]);
  const [half, most] = [0.5, 0.95].map((share) => quantile(counts, share));
  return half === null ? ["–", "none of late"] : [`${half} ms`, `p95 ${most} ms`];
}

/** As Prometheus does it: along a straight line within the bucket; in milliseconds. */
function quantile(counts, share) {
  const all = counts.at(-1)[1];
  if (!all) return null;
  const at = counts.findIndex(([, count]) => count >= share * all);
  const [below, before] = at ? counts[at - 1] : [0, 0];
  const [bound, count] = counts[at];
  if (bound === null) return `> ${whole(1000 * below)}`;
  return whole(1000 * (below + ((bound - below) * (share * all - before)) / (count - before)));
}
