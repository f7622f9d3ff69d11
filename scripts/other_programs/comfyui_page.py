"""Drop our workflows onto ComfyUI's page in a real browser, read them back there, and queue them.

    python scripts/other_programs/comfyui_page.py --comfyui FOLDER [--python PYTHON]
        [--front-end FOLDER] [--browser PROGRAM] [--pictures FOLDER] [--facts FILE]

FOLDER is a checkout of ComfyUI; PYTHON has what it needs; --front-end is the folder `static` of
another version of comfyui-frontend-package. This Python needs Playwright (pip install playwright)
and a Chromium. Each file is dropped onto the canvas with the browser's own drag and drop, and the
page's graph, and the prompt that its run button posts, are compared with the file. Behind that
button the loaders become those of small random models, as in `comfyui.py`, and each answer is
compared with ours; where it is not ours, the rank is looked for whose answer it is. Takes some
minutes on a CPU. Exits 1 if the page loses anything, or an answer is that of no rank.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import comfyui as real
import torch
from playwright.sync_api import Page, Route, sync_playwright

from tlora_cli import RankSchedule
from tlora_cli.families import FAMILIES
from tlora_cli.formats import open_adapter, tlora_file
from tlora_cli.formats.slices import wider

SCHEDULE = RankSchedule(64, 32)
SLICES = 8
TARGETS = {"sdxl": "linear", "flux": "linear"}
ROUNDING = 5e-4
"""The page may take so much from a number: it keeps thousandths."""
SIZE = {"width": 1600, "height": 1000}
CHROMIUM = [
    f"--{option}"
    for option in (
        "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update",
    )
]  # fmt: skip
SEEN_BEFORE = {"Comfy.TutorialCompleted": True}
"""ComfyUI's settings: without it the page opens its templates at the first visit."""
HEAD = (
    "| | nodes | links | lost | rounded | filled in | overlaps | steps | other rank | wrong "
    "| difference |"
)
RULE = "|---" * 11 + "|"
RUN = "button[data-testid=queue-button], [data-testid=queue-button] button"
READY = "() => window.app?.graph && window.app.canvas && document.querySelector('canvas')"
GRAPH = """async () => {
    const graph = app.graph.serialize(), output = (await app.graphToPrompt()).output;
    const known = window.LiteGraph.registered_node_types;
    return {graph, output, unknown: graph.nodes.map(n => n.type).filter(type => !(type in known)),
            boxes: app.graph._nodes.map(
                n => [`${n.id} ${n.type}`, ...n.boundingRect ?? n.getBounding()]),
            rounds: app.graph._nodes.flatMap(n => (n.widgets ?? []).filter(w => w.options?.round)
                .map(w => [`${n.type}.${w.name}`, w.options.round]))};
}"""


@dataclass
class Job:
    """A workflow to drop: its file, and the adapter file that says what it should do."""

    family: str
    what: str
    workflow: Path
    reference: Path


@dataclass
class Found:
    """The outcome of a job."""

    job: Job
    nodes: str
    links: str
    lost: list[str] = field(default_factory=list)
    rounded: dict[str, float] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)
    overlaps: list[str] = field(default_factory=list)
    rounds: dict[str, float] = field(default_factory=dict)
    steps: int = 0
    off: list[str] = field(default_factory=list)
    wrong: int = 0
    difference: float = 0.0

    def row(self) -> str:
        """Return it as a line of a table."""
        rounded = f"{len(self.rounded)} (by {max(self.rounded.values(), default=0):.1g})"
        cells = (f"{self.job.family}: {self.job.what}", self.nodes, self.links, len(self.lost),
                 rounded, len(self.filled), len(self.overlaps), self.steps, len(self.off),
                 self.wrong, f"{self.difference:.1e}")  # fmt: skip
        return f"| {' | '.join(map(str, cells))} |"


def prepare(work: Path) -> list[Job]:
    """Write models, adapters and workflows, and put files where ComfyUI looks for them."""
    loras, jobs = work / "models" / "loras", []
    loras.mkdir(parents=True)
    (work / "custom_nodes").mkdir()
    probe = Path(__file__).parent / "comfyui_probe"
    shutil.copytree(probe, work / "custom_nodes" / "probe")
    real.tlora("comfyui", work)
    settings = work / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(SEEN_BEFORE))
    for family, targets in TARGETS.items():
        file = work / family / f"{targets}.safetensors"
        base = real.bare(work, family)
        for what, more in {"workflow": (), f"{SLICES} slices": ("--slices", SLICES)}.items():
            folder = work / family / f"{family}-{what.replace(' ', '-')}"
            real.tlora(
                "convert", file, "--to", "comfyui", "--output", folder, "--base", base, *more
            )
            for part in folder.glob("*.safetensors"):
                shutil.copy(part, loras / part.name)
            reference = with_schedule(file, wider(SCHEDULE, SLICES)[0]) if more else file
            jobs.append(Job(family, what, folder / "workflow.json", reference))
        shutil.copy(file, loras / f"{family}.safetensors")
        own = work / "custom_nodes" / "tlora" / "workflows" / f"{family}.json"
        jobs.append(Job(family, "node", own, file))
    return jobs


def with_schedule(file: Path, schedule: RankSchedule) -> Path:
    """Write the adapter of a file with another schedule beside it; return the new file."""
    weights = open_adapter(file).read({})
    there = file.with_name(f"{file.stem}-steps.safetensors")
    tlora_file.write(
        there,
        replace(weights, schedule=schedule),
        timestep_scale=FAMILIES[weights.family or ""].timestep_scale,
    )
    return there


@contextmanager
def page(browser: str, work: Path) -> Iterator[Page]:
    """Open ComfyUI's page; nothing but the server itself is reached from it."""
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            work / "browser", executable_path=browser, args=CHROMIUM, headless=True, viewport=SIZE
        )
        context.set_default_timeout(120_000)
        home = f"http://127.0.0.1:{real.PORT}/"
        context.route(lambda url: not url.startswith(home), lambda route: route.abort())
        context.pages[0].goto(home)
        yield context.pages[0]
        context.close()


def drop(opened: Page, file: Path) -> None:
    """Drop a file onto the middle of the canvas, as from the desktop."""
    opened.reload()  # else nodes show pictures of what had their numbers before
    opened.wait_for_function(READY)
    opened.wait_for_timeout(3000)
    opened.evaluate("() => app.graph.clear()")
    session = opened.context.new_cdp_session(opened)
    data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": SIZE["width"] // 2, "y": SIZE["height"] // 2}
        session.send("Input.dispatchDragEvent", {"type": kind, "data": data, **at})
    opened.wait_for_function("() => app.graph._nodes.length > 0")
    opened.wait_for_timeout(2000)


def read_back(opened: Page, job: Job) -> Found:
    """Compare the page's graph, and the prompt made of it, with the file."""
    written = json.loads(job.workflow.read_text())
    there = opened.evaluate(GRAPH)
    links = [
        (link[0], link[1], number, name)
        for number, node in written.items()
        for name, link in node["inputs"].items()
        if isinstance(link, list)
    ]
    found = Found(
        job,
        f"{len(there['graph']['nodes'])} of {len(written)}",
        f"{len(there['graph']['links'])} of {len(links)}",
        overlaps=overlaps(there["boxes"]),
        rounds=dict(there["rounds"]),
    )
    found.lost += [f"{type_} is unknown" for type_ in there["unknown"]]
    differ(found, written, there["output"])
    return found


def differ(found: Found, written: dict[str, Any], posted: dict[str, Any]) -> None:
    """Put down in which places a prompt differs from the file."""
    for number in written.keys() ^ posted.keys():
        found.lost.append(f"node {number}")
    for number in written.keys() & posted.keys():
        ours, theirs = written[number], posted[number]
        if ours["class_type"] != theirs["class_type"]:
            found.lost.append(f"{number}: {ours['class_type']} is {theirs['class_type']}")
        for name in ours["inputs"].keys() | theirs["inputs"].keys():
            a, b = ours["inputs"].get(name), theirs["inputs"].get(name)
            if a == b:
                continue
            where = f"{number} {ours['class_type']}.{name}: {a} is {b}"
            if name not in ours["inputs"] and not isinstance(b, list):
                found.filled.add(where)
            elif isinstance(a, float) and isinstance(b, int | float) and abs(a - b) <= ROUNDING:
                found.rounded[f"{number}.{name}"] = abs(a - b)
            else:
                found.lost.append(where)


def overlaps(boxes: list[list[Any]]) -> list[str]:
    """Return the pairs of nodes that lie on each other; boxes are [name, x, y, width, height]."""
    return [
        f"{a[0]} lies on {b[0]}"
        for n, a in enumerate(boxes)
        for b in boxes[:n]
        if a[1] < b[1] + b[3] and b[1] < a[1] + a[3] and a[2] < b[2] + b[4] and b[2] < a[2] + a[4]
    ]


def queue(opened: Page, found: Found, work: Path) -> list[dict[str, Any]]:
    """Press the page's run button; return the calls of the model behind the loaders."""
    written, family = json.loads(found.job.workflow.read_text()), found.job.family
    shutil.rmtree(work / "calls", ignore_errors=True)

    def changed(route: Route) -> None:
        if route.request.method != "POST":
            return route.continue_()
        body = route.request.post_data_json
        before = len(found.lost)
        differ(found, written, body["prompt"])
        found.lost[before:] = [f"posted: {one}" for one in found.lost[before:]]
        body["prompt"] = real.probed(body["prompt"], family)
        for node in body["prompt"].values():
            if node["class_type"] == "TLoRALoader":
                node["inputs"]["lora_name"] = f"{family}.safetensors"
        return route.continue_(post_data=json.dumps(body))

    opened.route("**/api/prompt", changed)
    with opened.expect_response(lambda answer: answer.url.endswith("/api/prompt")) as answer:
        opened.locator(RUN).first.click()
    told = answer.value.json()
    opened.unroute("**/api/prompt")
    if "prompt_id" not in told:
        raise SystemExit(f"ComfyUI refuses the page's prompt: {json.dumps(told)[:3000]}")
    return real.calls_of(told["prompt_id"], work)


def compare(found: Found, calls: list[dict[str, Any]], work: Path) -> None:
    """Put down how far the answers are from ours, and at which steps the rank is another."""
    family = found.job.family
    model, adapter = real.adapted(family, found.job.reference, work)
    ranks = real.ranks_of(family, adapter.call.schedule, calls)
    exact = adapter.call.schedule
    found.steps = len(calls)
    for step, (call, rank) in enumerate(zip(calls, ranks, strict=True)):
        best = (real.distance(said(adapter, exact, family, model, call), call["answer"]), rank)
        if best[0] > real.TOLERANCE:
            for other in {max(rank - 1, 1), min(rank + 1, SCHEDULE.rank)}:
                fixed = RankSchedule(SCHEDULE.rank, other, kind="step", points=((0.0, other),))
                answer = said(adapter, fixed, family, model, call)
                best = min(best, (real.distance(answer, call["answer"]), other))
            found.off.append(f"step {step + 1}: rank {best[1]} for {rank}")
        found.wrong += best[0] > real.TOLERANCE
        found.difference = max(found.difference, best[0])


def said(
    adapter: Any, schedule: RankSchedule, family: str, model: Any, call: dict[str, Any]
) -> torch.Tensor:
    """Return our answer to a call under a schedule."""
    adapter.call.schedule = schedule
    with torch.no_grad():
        return real.answer(family, model, call)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comfyui", type=Path, required=True, help="a checkout of ComfyUI")
    parser.add_argument("--python", default=sys.executable, help="Python that can run it")
    parser.add_argument("--front-end", type=Path, help="another front end's folder `static`")
    parser.add_argument("--browser", default="/usr/bin/chromium", help="Chromium's program")
    parser.add_argument("--facts", type=Path, help="JSON file that gets what the page rounds to")
    parser.add_argument("--pictures", type=Path, help="folder that gets the page's screenshots")
    options = parser.parse_args()
    front_end = ("--front-end-root", str(options.front_end)) if options.front_end else ()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        real.make_models(work, [*TARGETS], SCHEDULE)
        jobs, rows, rounds = prepare(work), [], {}
        with (
            real.server(options.comfyui, options.python, work, *front_end),
            page(options.browser, work) as opened,
        ):
            version = real.ask("system_stats")["system"].get("comfyui_version", "unknown")
            for job in jobs:
                drop(opened, job.workflow)
                shown = opened.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__")
                found = read_back(opened, job)
                if options.pictures:
                    options.pictures.mkdir(exist_ok=True)
                    name = f"{version}-{shown}-{job.family}-{job.what.replace(' ', '-')}.png"
                    opened.screenshot(path=options.pictures / name)
                rounds |= found.rounds
                compare(found, queue(opened, found, work), work)
                rows.append(found)
                told = (*found.lost, *found.filled, *found.overlaps, *found.off)
                print(found.row(), *told, sep="\n", file=sys.stderr, flush=True)
    if options.facts:
        real.keep(options.facts, f"{version}, {shown}", rounds)
    print(f"ComfyUI {version}, front end {shown}\n\n{HEAD}\n{RULE}")
    print(*(found.row() for found in rows), sep="\n")
    if any(found.lost or found.wrong or found.overlaps for found in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
