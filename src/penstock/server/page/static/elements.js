// Elements made from text, never from markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** A new HTML element. Strings among the children become text. */
export const html = (name, attributes, ...children) =>
  filled(document.createElement(name), attributes, children);

/** A new SVG element. */
export const svg = (name, attributes, ...children) =>
  filled(document.createElementNS(SVG, name), attributes, children);

/** Show or hide an element that holds a message. */
export function tell(element, message) {
  element.textContent = message;
  element.hidden = !message;
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
