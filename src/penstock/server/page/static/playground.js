// The playground: what to ask is on the page, the answer is written as it comes.

import { showProbabilities, tokensIn, Turn } from "./answer.js";
import { showCurl } from "./curl.js";
import { byId, tell } from "./elements.js";
import { resetSampling, samplingOptions } from "./sampling.js";
import { ask, events } from "./server.js";

const EXAMPLE_SCHEMA = {
  type: "object",
  properties: { name: { type: "string", maxLength: 20 }, age: { type: "integer", minimum: 0, maximum: 120 } },
  required: ["name", "age"],
  additionalProperties: false,
};
const NUM_ALTERNATIVES = 5;
const ENOUGH_FOR_RATE = 16; // fewer tokens may arrive all at once

const welcome = byId("welcome");
let history = []; // the messages of a chat
let model; // undefined until the server has told it: then it takes its only one
let running = null; // what stops the answer being written

const isChat = () => document.querySelector("[name=mode]:checked").value === "chat";
const path = () => (isChat() ? "v1/chat/completions" : "v1/completions");

/** Ask this model from now on. */
export const useModel = (name) => (model = name);

/** Bring the playground to life. `onRefused` is told when the server wants a key. */
export function startPlayground(onRefused) {
  const prompt = byId("prompt");
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send(onRefused);
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send(onRefused);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) running?.abort();
  });
  byId("stop").addEventListener("click", () => running?.abort());
  byId("clear").addEventListener("click", clear);
  byId("reset").addEventListener("click", resetSampling);
  byId("open-curl").addEventListener("click", () => attempt(() => showCurl(path(), request(prompt.value))));
  byId("example-schema").addEventListener("click", () => {
    byId("schema").value = JSON.stringify(EXAMPLE_SCHEMA, null, 1);
    schema();
  });
  byId("schema").addEventListener("change", schema);
  for (const mode of document.querySelectorAll("[name=mode]")) mode.addEventListener("change", clear);
  showProbabilities(byId("conversation"));
}

function clear() {
  running?.abort();
  history = [];
  byId("conversation").replaceChildren(welcome);
  tell(byId("problem"), "");
  byId("system-field").hidden = !isChat();
  byId("view-playground").classList.toggle("completing", !isChat());
  byId("prompt").focus();
}

/** The body of a request. Throws what is wrong with the page's fields. */
function request(text) {
  const format = schema();
  if (format === null) throw new Error("The JSON schema cannot be read; see below it.");
  const common = { model, stream: true, stream_options: { include_usage: true }, ...samplingOptions() };
  if (format) common.response_format = { type: "json_schema", json_schema: { name: "answer", schema: format } };
  const shows = byId("probabilities").checked;
  if (!isChat()) return { prompt: text, ...common, ...(shows && { logprobs: NUM_ALTERNATIVES }) };
  const system = byId("system").value.trim();
  const opening = system ? [{ role: "system", content: system }] : [];
  const messages = [...opening, ...history, { role: "user", content: text }];
  return { messages, ...common, ...(shows && { logprobs: true, top_logprobs: NUM_ALTERNATIVES }) };
}

/** The schema that was entered: undefined if there is none, null if it cannot be read. */
function schema() {
  const field = byId("schema");
  let problem = "";
  let value;
  if (field.value.trim()) {
    try {
      value = JSON.parse(field.value);
    } catch (error) {
      [problem, value] = [`Not JSON: ${error.message}`, null];
    }
  }
  tell(byId("schema-problem"), problem);
  field.setAttribute("aria-invalid", String(Boolean(problem)));
  return value;
}

/** The result of `action`; what it throws is shown above the prompt. */
function attempt(action) {
  tell(byId("problem"), "");
  try {
    return action();
  } catch (error) {
    tell(byId("problem"), error.message);
    return undefined;
  }
}

async function send(onRefused) {
  const prompt = byId("prompt");
  const text = prompt.value;
  const body = !running && text.trim() && attempt(() => request(text));
  if (!body) return;
  welcome.remove();
  const asked = new Turn("user", isChat() ? "You" : "Prompt");
  asked.add(text);
  byId("conversation").append(asked.element);
  prompt.value = "";
  const answers = new Answers();
  const chat = history; // clearing the page begins another
  setRunning(new AbortController());
  try {
    await answers.read(path(), body, running.signal);
    chat.push({ role: "user", content: text }, answers.first());
  } catch (error) {
    if (!running.signal.aborted) {
      answers.fail(error.message);
      prompt.value = text;
      if (error.status === 401) onRefused(error.message);
    } else {
      answers.end("stopped");
      chat.push({ role: "user", content: text }, answers.first());
    }
  } finally {
    setRunning(null);
    follow(isFollowed());
  }
}

function setRunning(controller) {
  running = controller;
  byId("send").disabled = Boolean(running);
  byId("stop").disabled = !running;
  byId("conversation").setAttribute("aria-busy", String(Boolean(running)));
}

/** The choices of one answer, and how fast they came. */
class Answers {
  #turns = new Map();
  #began = performance.now();
  #first = 0;
  #usage = null;
  #reasons = new Map();

  async read(path, body, signal) {
    this.#turn(0);
    const response = await ask(path, { body, signal });
    for await (const event of events(response, signal)) {
      this.#usage = event.usage ?? this.#usage;
      for (const choice of event.choices) this.#take(choice);
    }
    for (const [index, turn] of this.#turns) turn.end(this.#note(this.#reasons.get(index)));
  }

  first() {
    return { role: "assistant", content: this.#turn(0).content };
  }

  end(why) {
    for (const turn of this.#turns.values()) turn.end(this.#note(why));
  }

  fail(message) {
    for (const turn of this.#turns.values()) turn.end(message, true);
  }

  #turn(index) {
    if (!this.#turns.has(index)) {
      const turn = new Turn("assistant writing", index ? `Answer ${index + 1}` : "Answer");
      this.#turns.set(index, turn);
      byId("conversation").append(turn.element);
      follow(true);
    }
    return this.#turns.get(index);
  }

  #take({ index, delta = {}, text, logprobs, finish_reason: reason }) {
    const turn = this.#turn(index);
    const thought = delta.reasoning_content ?? "";
    const words = thought || (delta.content ?? text ?? "");
    if (words || logprobs) this.#first ||= performance.now();
    const isNear = isFollowed();
    turn.add(words, tokensIn(logprobs), thought ? "thought" : "");
    follow(isNear);
    if (reason) this.#reasons.set(index, reason);
  }

  #note(reason) {
    const now = performance.now();
    const notes = [REASONS[reason] ?? reason ?? "broke off"];
    if (this.#first) notes.push(`first token ${Math.round(this.#first - this.#began)} ms`);
    if (this.#usage) {
      const { completion_tokens: written, prompt_tokens: read, prompt_tokens_details: details } = this.#usage;
      const cached = details?.cached_tokens ? ` (${details.cached_tokens} cached)` : "";
      notes.push(`${read} prompt tokens${cached}`, `${written} tokens`);
      if (written >= ENOUGH_FOR_RATE) notes.push(`${((1000 * (written - 1)) / (now - this.#first)).toFixed(0)} tokens/s`);
    }
    return notes.join(" · ");
  }
}

const REASONS = { stop: "complete", length: "cut off at the token limit" };

const isFollowed = () => {
  const place = byId("conversation");
  return place.scrollHeight - place.scrollTop - place.clientHeight < 60;
};

const follow = (isNear) => {
  const place = byId("conversation");
  if (isNear) place.scrollTop = place.scrollHeight;
};
