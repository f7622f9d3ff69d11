// Ask the server, and make pieces of the page.

export const MOST = 64e6; // bytes of a photo, as the server has it

export class Refused extends Error {
  constructor(told) {
    super(told.what);
    this.told = told;
  }
}

async function answered(request) {
  let answer;
  try {
    answer = await request;
  } catch {
    throw new Refused({ what: "The studio does not answer.", do: "Is it closed? Start it again: tlora studio" });
  }
  if (answer.ok) return answer.json();
  let told;
  try {
    told = await answer.json();
  } catch {
    told = { what: `The studio refused this (${answer.status}).`, do: "Open the address that tlora studio printed." };
  }
  throw new Refused(told);
}

export function ask(path) {
  return answered(fetch(path, { credentials: "same-origin" }));
}

export function tell(path, values = {}) {
  return answered(fetch(path, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(values),
  }));
}

export function send(path, file) {
  return answered(fetch(path, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
  }));
}

export const by = (id) => document.getElementById(id);

// An element with attributes and children; texts are texts, never HTML.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null && child !== ""));
  return made;
}

// Show a new state of a part only if it is another one, so that nothing flickers or loses its focus.
const shown = new Map();
export function once(part, key, make) {
  const text = JSON.stringify(key);
  if (shown.get(part) === text) return;
  shown.set(part, text);
  part.replaceChildren(...make());
}

export function picture(address, alt) {
  const image = element("img", { src: address, alt });
  image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalWidth <= 128));
  return image;
}

export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}
