// The later steps: training, drawing, exports.

import { by, element, once, picture, sentence } from "./asking.js";

const STATES = { starting: "starting", running: "training", stopped: "stopped", finished: "finished", damaged: "damaged" };
let follows = true; // whether the newest previews are shown
let rows = [];

export function watchPreviews(name) {
  by("preview-at").addEventListener("input", (event) => {
    follows = event.target.value === event.target.max;
    showPreviews(name());
  });
}

export function forgetPreviews() {
  follows = true;
}

export function showTraining(name, run, draft) {
  const busy = run.alive;
  by("again").hidden = !draft;
  once(by("learned-from"), [name, run.learned, run.state === "starting"], () => (run.state === "starting" ? [] : [
    run.learned && element("figure", {}, picture(`/learned/${encodeURIComponent(name)}`, "the square that is learned")),
    element("div", {}, element("p", {}, "Learned as ", element("b", {}, run.concept)),
      element("p", { class: "note" }, `${run.method}. Run folder: ${run.folder}`)),
  ].filter(Boolean)));
  by("learned-from").hidden = !run.steps;
  by("run-state").textContent = run.stopping ? "stopping" : STATES[run.state];
  by("run-state").className = `state ${run.state}`;
  by("run-step").textContent = run.steps ? `step ${run.step} of ${run.steps}` : "";
  by("run-bar").max = run.steps || 1;
  by("run-bar").value = run.step;
  by("run-bar").hidden = !run.steps;
  const verdict = run.step ? run.verdict : null;
  by("run-verdict").hidden = !verdict;
  by("run-verdict").className = `verdict ${verdict?.kind ?? ""}`;
  by("verdict-text").textContent = verdict?.text ?? "";
  by("verdict-more").textContent = verdict?.more ?? "";
  by("run-line").textContent = busy ? lastLine(run.lines) : "";
  by("run-failure").hidden = !run.failure;
  by("run-failure").textContent = run.failure;
  by("stop").hidden = !busy;
  by("stop").disabled = run.stopping || !run.here;
  by("resume").hidden = busy || run.state === "finished" || run.state === "damaged" || !run.steps;
  by("report").hidden = !run.report;
  by("report").href = `/report/${encodeURIComponent(name)}`;
  by("run-note").textContent = note(run);
  once(by("run-facts"), run.facts, () => Object.entries(run.facts).map(([what, value]) =>
    element("div", {}, element("dt", {}, what), element("dd", {}, value))));
  by("loss").hidden = !run.plot;
  if (by("loss-plot").dataset.shown !== `${name} ${run.step}`) {
    by("loss-plot").innerHTML = run.plot; // made by the server, which escapes what stands in it
    by("loss-plot").dataset.shown = `${name} ${run.step}`;
  }
  by("run-output").textContent = run.lines.join("\n");
  by("run-command").textContent = run.resume;
  rows = run.previews;
  showPreviews(name);
}

function note(run) {
  if (run.stopping) return "It ends after the step it is in, and saves.";
  if (run.alive && !run.here) return "This run was begun in a terminal: press Ctrl-C there to stop it.";
  if (run.alive) return "You can close this page: the training goes on.";
  if (run.state === "stopped" && run.saved) return `Saved after step ${run.saved}. Go on here, or with the command below.`;
  return "";
}

function lastLine(lines) {
  const told = lines.filter((line) => !line.startsWith("$ "));
  if (!told.length) return "Starting: libraries are loaded.";
  const last = told[told.length - 1];
  return /^step \d/.test(last) ? "" : sentence(last); // the bar shows steps, and sooner
}

function showPreviews(name) {
  const steps = [...new Set(rows.flatMap((row) => row.pictures.map((one) => one.step)))].sort((a, b) => a - b);
  by("previews").hidden = !steps.length;
  if (!steps.length) return;
  const slider = by("preview-at");
  slider.max = steps.length - 1;
  slider.disabled = steps.length < 2;
  if (follows) slider.value = slider.max;
  const step = steps[Number(slider.value)];
  by("preview-step").textContent = step;
  slider.setAttribute("aria-valuetext", `step ${step}`);
  once(by("preview-pictures"), [name, step, rows.length], () => rows.flatMap((row) => {
    const one = row.pictures.find((candidate) => candidate.step === step);
    if (!one) return [];
    const address = `/preview/${encodeURIComponent(name)}/${one.file.split("/").map(encodeURIComponent).join("/")}`;
    return [element("figure", {}, picture(address, `after step ${step}: ${row.prompt}`),
      element("figcaption", {}, `${row.prompt}${row.seed === "" ? "" : `, seed ${row.seed}`}`))];
  }));
}

export function showDrawings(name, sets) {
  once(by("drawings"), [name, sets], () => sets.map((one) => {
    const strength = Number(one.scale).toFixed(2);
    const titles = [["masked", "with the rank mask"], ["unmasked", "without it, all ranks"]];
    return element("div", { class: "drawn" }, element("h3", {}, one.prompt),
      element("p", { class: "note" }, `seed ${one.seed}, strength ${strength}, after step ${one.train_steps ?? "?"}`),
      element("div", { class: "pictures" }, ...titles.filter(([kind]) => one[kind]).map(([kind, title]) => {
        const address = `/drawing/${encodeURIComponent(name)}/${encodeURIComponent(one[kind])}`;
        return element("figure", {}, element("a", { href: address, target: "_blank", rel: "noopener" },
          picture(address, `${one.prompt}, ${title}`)), element("figcaption", {}, title));
      })));
  }));
}

export function showExports(name, list, writes) {
  once(by("exports"), [name, list], () => list.map((one) => element("div", { class: "export" },
    element("h3", {}, one.title), element("p", { class: "note" }, one.about),
    one.files.length
      ? files(one)
      : element("p", { class: "actions" }, element("button", { type: "button", "data-target": one.target, disabled: !one.ready,
        onclick: () => writes(one.target) }, `Write for ${one.title}`), one.ready ? "" : element("span", { class: "note" }, "when all steps are done")),
    element("details", {}, element("summary", {}, "The command"), element("pre", { class: "command" }, one.command)))));
}

// The files that were written; many are folded away.
function files(one) {
  const list = element("ul", {}, ...one.files.map((file) => element("li", {},
    element("a", { href: `/${file.path.split("/").map(encodeURIComponent).join("/")}`, download: "" }, file.path),
    ` (${size(file.bytes)})`)));
  const whole = size(one.files.reduce((sum, file) => sum + file.bytes, 0));
  if (one.files.length === 1) return list;
  return element("details", {}, element("summary", {}, `${one.output}: ${one.files.length} files, ${whole}`), list);
}

function size(bytes) {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} kB`;
}
