// The page: it asks for the state each second, shows it, and sends what the person does.

import { MOST, Refused, ask, by, element, once, send, sentence, tell } from "./asking.js";
import { forgetPreviews, showDrawings, showExports, showTraining, watchPreviews } from "./after.js";
import { Brush, Cropper, loadImage } from "./canvas.js";

const STEPS = ["photo", "thing", "mask", "plan", "train", "draw", "export"];
const EVERY = 1000; // milliseconds between two looks
const OTHER = "\0";

let name = decodeURIComponent(location.hash.slice(1));
let state = null;
let photoShown = "";
let maskShown = "";
let fieldsOf = null; // whose words stand in the fields
let choicesOf = null;
let sought = "";
let painting = 0; // masks on their way to the server

// --- messages -----------------------------------------------------------------------------------

function complain(error) {
  const told = error instanceof Refused ? error.told : { what: String(error.message || error), do: "" };
  by("message").querySelector(".what").textContent = sentence(told.what);
  by("message").querySelector(".do").textContent = sentence(told.do || "");
  by("message").hidden = false;
}

async function doing(act) {
  try {
    by("message").hidden = true;
    await act();
    await look();
  } catch (error) {
    complain(error);
  }
}

const here = (act) => `/api/${encodeURIComponent(name)}/${act}`;

// --- looking ------------------------------------------------------------------------------------

async function look() {
  const asked = name;
  const told = await ask(`/api/state?name=${encodeURIComponent(asked)}`);
  if (asked !== name) return; // another one was chosen meanwhile
  state = told;
  show();
}

async function keepLooking() {
  let lost = false;
  for (;;) {
    if (!document.hidden) {
      try {
        await look();
        if (lost) by("message").hidden = true;
        lost = false;
      } catch (error) {
        if (!lost) complain(error);
        lost = true;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}

function choose(other) {
  name = other;
  location.hash = encodeURIComponent(other);
  photoShown = maskShown = sought = "";
  fieldsOf = choicesOf = null;
  forgetPreviews();
  by("message").hidden = true;
}

// --- the whole page -----------------------------------------------------------------------------

function show() {
  const shown = state.shown;
  if (!shown && name) { // there is no such work
    choose("");
    return;
  }
  const draft = shown?.draft ?? null;
  const run = shown?.run ?? null;
  if (state.machine.room) by("machine").textContent = state.machine.room;
  showWorks();
  const open = {
    photo: !run,
    thing: Boolean(draft) && !run,
    mask: Boolean(draft?.class_name && draft.base) && !run,
    plan: ready(draft) && !run,
    train: Boolean(run),
    draw: Boolean(run?.adapter) && !run.alive,
    export: Boolean(run?.adapter) && !run.alive,
  };
  for (const step of STEPS) {
    const part = by(`step-${step}`);
    part.hidden = Boolean(run) && STEPS.indexOf(step) < 4;
    part.classList.toggle("later", !open[step]);
    part.classList.toggle("done", done(step, draft, run));
  }
  if (!run) showPhoto(draft);
  if (open.thing) showFields(draft);
  if (open.mask) showMask(shown, draft);
  if (open.plan) showPlan(shown, draft);
  if (run) showTraining(name, run, draft);
  if (open.draw) showDraw(shown);
  if (open.export) showExport(shown);
}

function ready(draft) {
  return Boolean(draft?.class_name && draft.base && (draft.has_mask || !draft.uses_mask));
}

function done(step, draft, run) {
  if (step === "photo") return Boolean(draft);
  if (step === "thing") return Boolean(draft?.class_name && draft.base);
  if (step === "mask") return ready(draft);
  if (step === "plan") return Boolean(draft?.plan?.ready);
  if (step === "train") return run?.state === "finished";
  if (step === "draw") return Boolean(state.shown?.drawings.length);
  return Boolean(state.shown?.exports.some((one) => one.files.length));
}

const WORDS = { draft: "not begun", running: "training", stopped: "stopped", finished: "finished" };

function showWorks() {
  by("works").hidden = !state.works.length;
  once(by("works"), [state.works, name], () => [
    element("button", { type: "button", "aria-current": name === "" ? "page" : null, onclick: () => { choose(""); look(); } }, "New photo"),
    ...state.works.map((one) => element("button", {
      type: "button", "data-state": one.state, "aria-current": one.name === name ? "page" : null,
      onclick: () => { choose(one.name); look().catch(complain); },
    }, one.name, element("small", {}, WORDS[one.state]))),
  ]);
}

// Whether a task is under way for what is shown, and what it said last.
function task(kind) {
  const job = state.job;
  return job && job.task === kind && job.name === name ? job : null;
}

function saying(job) {
  return job ? `${sentence(job.lines.at(-1) ?? job.title)} …` : "";
}

// --- 1: photo -----------------------------------------------------------------------------------

const cropper = new Cropper(by("crop"), by("crop-size"), by("crop-said"), (crop) =>
  doing(() => { sought = ""; return tell(here("change"), { crop }); }));

async function showPhoto(draft) {
  by("cropper").hidden = !draft;
  by("drop").hidden = Boolean(draft);
  if (!draft || photoShown === name) return;
  photoShown = name;
  try {
    const image = await loadImage(`/photo/${encodeURIComponent(name)}?whole=1`);
    cropper.show(image, draft.width, draft.height, draft.crop);
  } catch (error) {
    complain(error);
  }
}

function upload(file) {
  return doing(async () => {
    if (file.size > MOST) {
      throw new Refused({ what: `${file.name} has ${Math.round(file.size / 1e6)} MB, which is too large for a photo.`, do: "Save it as a JPEG of fewer pixels." });
    }
    const made = await send(`/api/photo?name=${encodeURIComponent(file.name)}`, file);
    choose(made.name);
  });
}

by("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) upload(file);
  event.target.value = "";
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    by("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind !== "drop") return;
    const [file] = event.dataTransfer.files;
    if (file) {
      if (name) choose("");
      upload(file);
    }
  });
}

// --- 2: what it is ------------------------------------------------------------------------------

function showFields(draft) {
  const { machine } = state;
  if (fieldsOf !== name) { // once: what is typed later is not taken away
    fieldsOf = name;
    by("class").value = draft.class_name;
    by("steps").value = draft.steps ?? "";
    by("judged").checked = draft.judged;
    for (const choice of document.getElementsByName("recipe")) choice.checked = choice.value === draft.recipe;
  }
  by("base").disabled = by("card").disabled = !machine.bases;
  if (!machine.bases) {
    by("base-said").textContent = "Looking at what this machine has …";
    return;
  }
  const known = machine.bases.map((one) => one.name);
  once(by("base"), known, () => [
    element("option", { value: "" }, "choose one"),
    ...machine.bases.map((one) => element("option", { value: one.name }, one.name)),
    element("option", { value: OTHER }, "another one"),
  ]);
  once(by("card"), machine.cards, () => [
    element("option", { value: "" }, machine.has_card ? "the one in this computer" : "none: this computer"),
    ...machine.cards.map((card) => element("option", { value: card }, `plan for ${card.replace("gb", " GB")}`)),
  ]);
  if (choicesOf !== name) { // these wait for what the machine has
    choicesOf = name;
    const other = draft.base !== "" && !known.includes(draft.base);
    by("base").value = other ? OTHER : draft.base;
    by("base-other").value = other ? draft.base : "";
    by("card").value = draft.card;
  }
  by("other").hidden = by("base").value !== OTHER;
  const base = machine.bases.find((one) => one.name === by("base").value);
  by("base-said").textContent = base ? `${base.name}: ${base.about}.` : "";
  const words = base?.classes ?? [];
  once(by("classes"), words, () => words.map((word) => element("option", { value: word })));
  if (words.length) by("base-said").textContent += ` It knows the words ${words.join(", ")}.`;
}

by("thing").addEventListener("submit", (event) => event.preventDefault());
by("thing").addEventListener("change", () => {
  const base = by("base").value === OTHER ? by("base-other").value : by("base").value;
  const steps = by("steps").value;
  const [recipe] = [...document.getElementsByName("recipe")].filter((one) => one.checked);
  sought = "";
  const chosen = choicesOf === name ? { base, card: by("card").value } : {};
  doing(() => tell(here("change"), {
    ...chosen,
    class_name: by("class").value,
    recipe: recipe.value,
    judged: by("judged").checked,
    steps: steps === "" ? null : Number(steps),
  }));
});

// --- 3: the subject -----------------------------------------------------------------------------

const brush = new Brush(by("mask"), by("brush-size"), by("undo"),
  () => document.querySelector("input[name=brush]:checked").value === "add", sendMask);

async function sendMask() {
  painting += 1;
  try {
    await send(here("paint"), await brush.file());
  } catch (error) {
    complain(error);
  } finally {
    painting -= 1;
  }
}

async function showMask(shown, draft) {
  by("mask-unused").hidden = draft.uses_mask;
  by("mask-said").hidden = !draft.uses_mask;
  const job = task("mask");
  const has = draft.uses_mask && draft.has_mask && !job;
  by("masker").hidden = !has;
  if (!draft.uses_mask) return;
  const error = shown.errors.mask;
  const asked = JSON.stringify([draft.class_name, draft.base, draft.crop]);
  if (!draft.has_mask && !job && sought !== asked) {
    sought = asked;
    tell(here("find-mask")).catch(complain);
  }
  if (job) by("mask-said").textContent = saying(job);
  else if (has) by("mask-said").textContent = maskWords(draft.mask);
  else by("mask-said").textContent = error ? `${sentence(error.what)}. ${sentence(error.do)}.` : "Looking for the subject …";
  const version = `${name} ${draft.mask_version} ${draft.photo_version}`;
  if (!has || painting || brush.painting || maskShown === version) return;
  const own = draft.painted && maskShown.startsWith(`${name} `) && maskShown.endsWith(` ${draft.photo_version}`);
  maskShown = version;
  if (own) return; // it is what the brush shows already
  try {
    const address = `${encodeURIComponent(name)}?at=`;
    const pictures = await Promise.all([
      loadImage(`/photo/${address}${draft.photo_version}`), loadImage(`/mask/${address}${draft.mask_version}`)]);
    if (!painting && !brush.painting) brush.show(...pictures);
  } catch (error_) {
    maskShown = "";
    complain(error_);
  }
}

function maskWords(mask) {
  const share = `${Math.round(100 * mask.coverage)}% of the square, by ${mask.by}.`;
  return mask.doubt ? `Please look: the mask ${mask.doubt}. Paint to correct it. (${share})` : `The subject is ${share}`;
}

by("find").addEventListener("click", () => doing(() => { maskShown = ""; return tell(here("find-mask")); }));

// --- 4: what will happen ------------------------------------------------------------------------

function showPlan(shown, draft) {
  const job = task("plan");
  const plan = job ? null : draft.plan;
  by("plan").disabled = Boolean(job) || Boolean(task("mask"));
  by("plan").hidden = Boolean(plan);
  const error = shown.errors.plan && !plan ? `${sentence(shown.errors.plan.what)}. ${sentence(shown.errors.plan.do)}.` : "";
  by("plan-busy").textContent = job ? saying(job) : error || (shown.failed ? sentence(shown.failed) : "");
  by("plan-busy").hidden = !by("plan-busy").textContent;
  by("planned").hidden = !plan;
  if (!plan) return;
  once(by("plan-words"), plan.words, () => plan.words.flatMap(([what, words]) => [element("dt", {}, what), element("dd", {}, words)]));
  const serious = plan.findings.filter((one) => one.level !== "ok");
  once(by("plan-findings"), serious, () => serious.map(finding));
  once(by("plan-all"), plan.findings, () => plan.findings.map(finding));
  by("plan-recipe").textContent = plan.text;
  const busy = state.works.find((one) => one.state === "running");
  by("start").disabled = !plan.ready || Boolean(busy) || Boolean(state.job);
  by("plan-note").textContent = planNote(plan, draft, busy);
}

function planNote(plan, draft, busy) {
  const file = `${draft.name}.yaml`;
  const written = draft.recipe_file ? `Written: ${file}. ` : "";
  if (plan.elsewhere) return `${written}This is a plan for another card: write the recipe, and there run: tlora train --config ${file}`;
  if (!plan.ready) return "It can't begin like this; what is marked above says what to do.";
  if (busy) return `${busy.name} is training; one run at a time has the machine.`;
  return `${written}At the command line it is: tlora train --config ${file}`;
}

function finding(one) {
  const words = { ok: "", warning: "Mind: ", problem: "Problem: " }[one.level];
  return element("li", { class: one.level }, words && element("b", {}, words.trim()), `${one.about}: ${one.text}`,
    one.do && element("small", {}, sentence(one.do)));
}

by("plan").addEventListener("click", () => doing(() => tell(here("plan"))));
by("start").addEventListener("click", () => { by("start").disabled = true; doing(() => tell(here("start"))); });
by("write").addEventListener("click", () => doing(() => tell(here("recipe"))));

// --- 5 to 7: training, drawing, exports ---------------------------------------------------------

watchPreviews(() => name);
by("stop").addEventListener("click", () => { by("stop").disabled = true; doing(() => tell(here("stop"))); });
by("resume").addEventListener("click", () => { by("resume").disabled = true; doing(() => tell(here("resume"))).finally(() => { by("resume").disabled = false; }); });

by("again").addEventListener("click", () => doing(async () => choose((await tell(here("again"))).name)));

function showDraw(shown) {
  const job = task("draw");
  if (!by("prompts").dataset.of || by("prompts").dataset.of !== name) {
    by("prompts").dataset.of = name;
    by("prompts").value = shown.run.previews.map((row) => row.prompt.replaceAll(shown.run.concept, "V*")).join("\n") || "a photo of a V* in the snow";
  }
  by("draw-now").disabled = Boolean(state.job);
  by("draw-stop").hidden = !job;
  const error = shown.errors.draw;
  by("draw-busy").textContent = job ? saying(job) : error ? `${sentence(error.what)}. ${sentence(error.do)}` : "";
  by("draw-note").textContent = shown.run.state === "finished" ? "" : `Drawn with the checkpoint of step ${shown.run.saved}.`;
  showDrawings(name, shown.drawings);
}

by("scale").addEventListener("input", () => { by("scale-said").textContent = Number(by("scale").value).toFixed(2); });
by("draw").addEventListener("submit", (event) => {
  event.preventDefault();
  doing(() => tell(here("draw"), {
    prompts: by("prompts").value.split("\n"),
    seed: Number(by("seed").value),
    count: Number(by("count").value),
    scale: Number(by("scale").value),
    both: by("both").checked,
  }));
});
by("draw-stop").addEventListener("click", () => doing(() => tell("/api/stop-job")));

function showExport(shown) {
  const job = task("export");
  const error = shown.errors.export;
  by("export-busy").textContent = job ? saying(job) : error ? `${sentence(error.what)}. ${sentence(error.do)}` : "";
  showExports(name, shown.exports, (target) => doing(() => tell(here("export"), { target })));
}

by("message-close").addEventListener("click", () => { by("message").hidden = true; });
addEventListener("hashchange", () => {
  const other = decodeURIComponent(location.hash.slice(1));
  if (other !== name) { choose(other); look().catch(complain); }
});
keepLooking();
