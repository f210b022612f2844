// One answer as it is written: spans of text that know which tokens they are made of.

import { byId, html } from "./elements.js";

const tokensOf = new WeakMap(); // span -> its tokens

/** A turn of the conversation; `add` puts text into it. */
export class Turn {
  constructor(role, title) {
    this.text = html("div", { class: "text" });
    this.note = html("p", { class: "note" });
    this.element = html("article", { class: `turn ${role}` }, html("h3", {}, title), this.text);
    this.content = "";
    this.waiting = []; // tokens whose text the server still holds back
  }

  add(text, tokens = [], kind = "") {
    if (!kind) this.content += text;
    const all = [...this.waiting, ...tokens];
    this.waiting = text ? [] : all;
    if (!text) return;
    const isSpelled = all.map((token) => token.text).join("") === text;
    if (isSpelled) for (const token of all) this.text.append(span(token.text, [token], kind));
    else this.text.append(span(text, all, kind));
    if (all.length) walkable(this.text);
  }

  end(note, isProblem = false) {
    this.note.textContent = note;
    this.note.classList.toggle("problem", isProblem);
    this.element.append(this.note);
    this.element.classList.remove("writing");
  }
}

/** The tokens of one event, in the shape of either endpoint. */
export function tokensIn(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) {
    return logprobs.content.map(({ token, logprob, top_logprobs: top }) => ({
      text: token,
      logprob,
      top: top.map((other) => [other.token, other.logprob]),
    }));
  }
  return logprobs.tokens.map((text, at) => ({
    text,
    logprob: logprobs.token_logprobs[at],
    top: Object.entries(logprobs.top_logprobs[at] ?? {}),
  }));
}

function span(text, tokens, kind) {
  const node = html("span", { class: kind }, text);
  if (tokens.length) {
    tokensOf.set(node, tokens);
    const least = Math.exp(Math.min(...tokens.map((token) => token.logprob)));
    node.classList.add("token", least < 0.05 ? "rare" : least < 0.3 ? "odd" : "usual");
  }
  return node;
}

/** Let the arrow keys walk through a text's tokens. */
function walkable(text) {
  if (text.tabIndex === 0) return;
  text.tabIndex = 0;
  text.setAttribute("role", "group");
  text.setAttribute("aria-label", "Answer; arrow keys walk through its tokens");
  text.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const tokens = [...text.querySelectorAll(".token")];
    const at = tokens.findIndex((token) => token.classList.contains("chosen"));
    const next = tokens[Math.max(0, Math.min(tokens.length - 1, at + step))];
    next.scrollIntoView({ block: "nearest" });
    choose(next);
  });
  text.addEventListener("blur", () => choose(null));
}

/** Show the probabilities of whatever token in `place` is pointed at. */
export function showProbabilities(place) {
  const pointed = (event) => event.target.closest?.(".token") ?? null;
  place.addEventListener("pointerover", (event) => choose(pointed(event)));
  place.addEventListener("pointerleave", () => choose(null));
  place.addEventListener("click", (event) => choose(pointed(event)));
  place.addEventListener("scroll", () => choose(place.querySelector(".chosen")));
}

function choose(token) {
  const tip = byId("tip");
  for (const chosen of document.querySelectorAll(".chosen")) chosen.classList.remove("chosen");
  tip.hidden = !token;
  if (!token) return;
  token.classList.add("chosen");
  tip.replaceChildren(...tokensOf.get(token).map(table));
  const at = token.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8));
  const isAbove = at.bottom + tip.offsetHeight + 16 > innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${isAbove ? at.top - tip.offsetHeight - 6 : at.bottom + 6}px`;
}

function table(token) {
  const others = token.top.filter(([text]) => text !== token.text);
  const rows = [[token.text, token.logprob], ...others].sort((a, b) => b[1] - a[1]);
  return html("table", {}, html("caption", { class: "unseen" }, "Token probabilities"),
    ...rows.map((row) => probability(row, row[0] === token.text)));
}

function probability([text, logprob], isChosen) {
  const share = Math.exp(logprob);
  const bar = html("i");
  bar.style.width = `${100 * share}%`;
  const percent = share >= 0.9995 ? "100 %" : `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;
  return html("tr", { class: isChosen ? "taken" : "" },
    html("th", { scope: "row" }, visible(text)), html("td", {}, html("div", { class: "share" }, bar)), html("td", {}, percent));
}

/** White space as marks, so that tokens made of it can be told apart. */
const visible = (text) =>
  text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "(nothing)";
