// A control for every sampling option that the server's OpenAPI document describes.

import { byId, html } from "./elements.js";

const PROMINENT = ["temperature", "max_tokens", "top_p", "top_k", "seed"];
const FILLED_BY_PAGE = ["logprobs", "prompt_logprobs", "grammar"];
const START = { max_tokens: "256" };

let controls = [];

/** Draw the controls. An option that the server has learnt since appears under "More options". */
export function drawSampling(document) {
  const options = document.components.schemas.SamplingParams.properties;
  const others = Object.keys(options).filter((name) => !PROMINENT.includes(name));
  const names = [...PROMINENT, ...others].filter(
    (name) => name in options && !FILLED_BY_PAGE.includes(name),
  );
  controls = names.map((name) => control(name, options[name]));
  const drawn = (isProminent) =>
    controls.filter(({ name }) => PROMINENT.includes(name) === isProminent).map((each) => each.row);
  byId("sampling").replaceChildren(...drawn(true));
  byId("sampling-more").replaceChildren(...drawn(false));
  resetSampling();
}

/** Back to what the server does by itself, but for a length that suits a page. */
export function resetSampling() {
  for (const { name, input, changed } of controls) {
    if (input.type === "checkbox") input.checked = input.defaultChecked;
    else input.value = START[name] ?? "";
    changed();
  }
}

/** The options that have been set, as fields of a request. Throws if one is not readable. */
export function samplingOptions() {
  return Object.fromEntries(
    controls.map(({ name, read }) => [name, read()]).filter(([, value]) => value !== undefined),
  );
}

function control(name, schema) {
  const kinds = (schema.anyOf ?? [schema]).filter((kind) => kind.type !== "null");
  const kind = (type) => kinds.find((each) => each.type === type);
  const number = kind("number") ?? kind("integer");
  const made = kind("boolean")
    ? checkbox(schema)
    : number
      ? numeric(name, number, schema)
      : kind("array")
        ? list(name, kind("array"))
        : kind("string")
          ? text()
          : json(name);
  const id = `option-${name}`;
  made.input.id = id;
  const label = html("label", { for: id, title: schema.description }, name.replaceAll("_", " "));
  const about = html("p", { class: "hint", id: `${id}-about` }, schema.description);
  made.input.setAttribute("aria-describedby", about.id);
  const fields = [made.input, made.slider].filter(Boolean);
  const row = html("div", { class: `option ${made.input.type}` }, label, ...fields, about);
  return { name, row, changed: () => {}, ...made };
}

function checkbox(schema) {
  const input = html("input", { type: "checkbox", checked: schema.default });
  const read = () => (input.checked === schema.default ? undefined : input.checked);
  return { input, read };
}

function numeric(name, kind, schema) {
  const min = kind.minimum ?? kind.exclusiveMinimum;
  const input = html("input", {
    type: "number",
    step: kind.type === "integer" ? 1 : "any",
    placeholder: schema.default ?? "none",
    min,
    max: kind.maximum,
  });
  const read = () => (input.value === "" ? undefined : Number(input.value));
  if (kind.type === "integer" || min === undefined || kind.maximum === undefined) {
    return { input, read };
  }
  const range = { min, max: kind.maximum, step: 0.01, "aria-label": `${name}, slider` };
  const slider = html("input", { type: "range", ...range });
  const changed = () => (slider.value = input.value === "" ? schema.default : input.value);
  input.addEventListener("input", changed);
  slider.addEventListener("input", () => (input.value = slider.value));
  return { input, slider, read, changed };
}

function list(name, kind) {
  const isText = (kind.items.type ?? "string") === "string";
  const input = html("textarea", {
    rows: isText ? 2 : 1,
    placeholder: isText ? "one per line" : "separated by commas",
  });
  const split = () => input.value.split(isText ? "\n" : ",").filter((each) => each.trim() !== "");
  const read = () => {
    const items = isText ? split() : split().map(Number);
    if (items.some(Number.isNaN)) throw new Error(`${name}: only numbers, separated by commas.`);
    return items.length ? items : undefined;
  };
  return { input, read };
}

function text() {
  const input = html("input", { type: "text" });
  return { input, read: () => input.value || undefined };
}

function json(name) {
  const input = html("textarea", { rows: 1, class: "code", placeholder: "JSON", spellcheck: "false" });
  const read = () => {
    if (!input.value.trim()) return undefined;
    try {
      return JSON.parse(input.value);
    } catch (error) {
      throw new Error(`${name} is not JSON: ${error.message}`);
    }
  };
  return { input, read };
}
