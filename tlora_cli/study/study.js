// The page of a rater: it shows a pair, sends each answer, and goes on when the answer is kept.
"use strict";

const trial = document.getElementById("trial");
const rater = trial.dataset.rater;
const groups = [...document.querySelectorAll(".question")];
const status = document.getElementById("status");
const KEYS = { ArrowLeft: "left", ArrowDown: "same", ArrowRight: "right" };
const RETRY = 1500; // milliseconds between two attempts to reach the server

let now = null; // what the server said of the pair that is shown
let current = 0; // number of the question
let since = 0;
let busy = true;

const wait = (time) => new Promise((ready) => setTimeout(ready, time));

// Asks until the server answers: it may have been stopped, and be started again.
async function ask(address, options) {
  for (;;) {
    try {
      const answer = await fetch(address, options);
      if (answer.ok) {
        status.textContent = "";
        return await answer.json();
      }
      status.textContent = `The server refuses: ${await answer.text()}`;
      return null;
    } catch {
      status.textContent = "The server does not answer. Your answer is kept here and sent again.";
      await wait(RETRY);
    }
  }
}

function picture(id, name) {
  const image = document.getElementById(id);
  image.src = `/picture/${name}.png`;
  return image;
}

async function load(position) {
  busy = true;
  const chosen = position === undefined ? "" : `&position=${position}`;
  const found = await ask(`/state?rater=${encodeURIComponent(rater)}${chosen}`);
  if (found === null) return;
  now = found;
  document.getElementById("done").hidden = !now.done;
  trial.hidden = now.done;
  if (now.done) {
    busy = false;
    return;
  }
  document.getElementById("bar").max = now.total;
  document.getElementById("bar").value = now.answered;
  document.getElementById("place").textContent = `${now.position + 1} of ${now.total}`;
  document.getElementById("prompt").textContent = now.prompt;
  document.getElementById("back").disabled = now.position === 0;
  const reference = document.getElementById("reference");
  reference.replaceChildren(
    ...now.reference.map((name) => {
      const image = document.createElement("img");
      image.src = `/picture/${name}.png`;
      image.alt = "Photograph of the thing";
      return image;
    }),
  );
  const pair = [picture("left", now.left), picture("right", now.right)];
  for (const name of now.ahead) new Image().src = `/picture/${name}.png`;
  const open = groups.findIndex((group) => !(group.dataset.question in now.answers));
  show(position === undefined || open >= 0 ? Math.max(open, 0) : groups.length - 1);
  await Promise.allSettled(pair.map((image) => image.decode()));
  trial.classList.toggle("small", pair[0].naturalWidth < 256);
  since = performance.now();
  busy = false;
}

function show(question) {
  current = question;
  groups.forEach((group, number) => {
    group.classList.toggle("now", number === current);
    for (const button of group.querySelectorAll("button")) {
      const chosen = now.answers[group.dataset.question] === button.dataset.answer;
      button.setAttribute("aria-pressed", String(chosen));
    }
  });
  document.getElementById("back").disabled = now.position === 0 && current === 0;
}

async function answer(number, value) {
  if (busy || now === null || now.done) return;
  busy = true;
  const question = groups[number].dataset.question;
  now.answers[question] = value;
  show(number);
  const kept = await ask("/vote", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      rater,
      position: now.position,
      question,
      answer: value,
      seconds: (performance.now() - since) / 1000,
    }),
  });
  busy = false;
  if (kept === null) return;
  since = performance.now();
  const open = groups.findIndex((group) => !(group.dataset.question in now.answers));
  if (open >= 0) show(open);
  else await load();
}

async function back() {
  if (busy || now === null) return;
  if (now.done) await load(now.total - 1);
  else if (current > 0) show(current - 1);
  else if (now.position > 0) await load(now.position - 1);
}

groups.forEach((group, number) => {
  for (const button of group.querySelectorAll("button")) {
    button.addEventListener("click", () => answer(number, button.dataset.answer));
  }
});
document.getElementById("back").addEventListener("click", back);
document.getElementById("again").addEventListener("click", back);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (event.key === "Backspace") back();
  else if (event.key in KEYS) answer(current, KEYS[event.key]);
  else return;
  event.preventDefault();
});
load();
