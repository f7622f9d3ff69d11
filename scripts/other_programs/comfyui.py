"""Run our ComfyUI workflow and our node in the real ComfyUI, and compare with tlora itself.

    python scripts/other_programs/comfyui.py --comfyui FOLDER [--python PYTHON] [--family NAME ...]

FOLDER is a checkout of ComfyUI; PYTHON has what it needs. Small random models of ComfyUI's own
classes are put behind the workflow's loaders, the workflow is posted to the server as it stands
otherwise, and each answer of the model is compared with that of diffusers' class and our masked
adapter on the same input. Takes some minutes on a CPU. Prints a table; exits 1 if an
answer differs by more than a hundred-thousandth of its size, or a rank is another.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import torch
from comfyui_models import MODELS, answer, make_models, t_of
from safetensors.torch import load_file

from tlora_cli import RankSchedule
from tlora_cli.families import FAMILIES
from tlora_cli.injection.load import load_adapter

PORT = 8197
RANK, LEAST = 8, 3
TOLERANCE = 1e-5
STANDS_FOR = {
    "CheckpointLoaderSimple": "ProbeCheckpoint",
    "UNETLoader": "ProbeDenoiser",
    "CLIPLoader": "ProbeWords",
    "DualCLIPLoader": "ProbeWords",
    "TripleCLIPLoader": "ProbeWords",
    "VAELoader": "ProbeGray",
}
"""ComfyUI's loaders -> the probe's; all other nodes of a workflow stay as they are."""


@dataclass(frozen=True)
class Row:
    """A workflow that was run: calls of the model, and how far its answers were from ours."""

    family: str
    what: str
    ranks: list[int]
    wrong: int
    difference: float


def prepare(work: Path, families: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what is to be run: name -> workflow; put files where ComfyUI looks for them."""
    loras, jobs = work / "models" / "loras", {}
    loras.mkdir(parents=True)
    (work / "custom_nodes").mkdir()
    shutil.copytree(Path(__file__).parent / "comfyui_probe", work / "custom_nodes" / "probe")
    tlora("comfyui", work)
    for family in families:
        for file in sorted((work / family).glob("*.safetensors")):
            if file.stem == "weights":
                continue
            name = f"{family}-{file.stem}"
            shutil.copy(file, loras / f"{name}.safetensors")
            node = json.loads((work / f"custom_nodes/tlora/workflows/{family}.json").read_text())
            for one in node.values():
                if one["class_type"] == "TLoRALoader":
                    one["inputs"]["lora_name"] = f"{name}.safetensors"
            jobs[f"{name} node"] = node
            export = work / family / f"{name}-export"
            tlora(
                "convert", file, "--to", "comfyui", "--output", export, "--base", bare(work, family)
            )
            for part in export.glob("*.safetensors"):
                shutil.copy(part, loras / part.name)
            jobs[f"{name} workflow"] = json.loads((export / "workflow.json").read_text())
    return jobs


def bare(work: Path, family: str) -> Path:
    """Return a diffusers folder with the model's configuration alone."""
    folder = work / family / "base"
    if not folder.exists():
        MODELS[family].make().save_config(folder / FAMILIES[family].denoiser)
    return folder


def facts(workflows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what this ComfyUI says of the workflows' nodes: inputs, defaults, bounds, outputs."""
    used = {node["class_type"] for workflow in workflows for node in workflow.values()}
    there = ask("object_info")
    found = {}
    for kind in sorted(used - {"TLoRALoader"}):
        given = there[kind]["input"]
        found[kind] = {
            part: {name: _plain(about) for name, about in given.get(part, {}).items()}
            for part in ("required", "optional")
        } | {"output": there[kind]["output"]}
    return found


def _plain(about: list[Any]) -> list[Any]:
    """Return an input's type and bounds; lists of files or long texts are left out."""
    kind, *more = about
    said = more[0] if more else {}
    kept = {k: said[k] for k in ("default", "min", "max", "round") if k in said}
    if isinstance(kind, list):
        kind = kind if kind and all(isinstance(one, str) for one in kind) else []
    return [kind, kept]


def tlora(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "tlora_cli", *map(str, arguments)], check=True)


def probed(workflow: dict[str, Any], family: str) -> dict[str, Any]:
    """Return the workflow with the probe behind its loaders and a small picture."""
    changed = json.loads(json.dumps(workflow))
    for node in changed.values():
        if node["class_type"] in STANDS_FOR:
            node["class_type"], node["inputs"] = STANDS_FOR[node["class_type"]], {"family": family}
        if "width" in node["inputs"]:
            node["inputs"] |= {"width": 128, "height": 128}
    return changed


@contextmanager
def server(comfyui: Path, python: str, work: Path, *options: str) -> Iterator[None]:
    """Run ComfyUI on a CPU with the work folder as its own."""
    command = [python, "main.py", "--cpu", "--port", str(PORT), "--base-directory", str(work),
               "--disable-auto-launch", *options]  # fmt: skip
    environment = {**os.environ, "TLORA_PROBE": str(work)}
    with (work / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=comfyui, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(240):
                if process.poll() is not None:
                    raise SystemExit((work / "server.log").read_text()[-3000:])
                try:
                    ask("system_stats")
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.5)
            yield
        finally:
            process.terminate()
            process.wait()


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/{path}", data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        return json.load(answer)


def run(workflow: dict[str, Any], work: Path) -> list[dict[str, Any]]:
    """Post a workflow, wait for its end, return the calls of the model."""
    shutil.rmtree(work / "calls", ignore_errors=True)
    try:
        number = ask("prompt", {"prompt": workflow})["prompt_id"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"ComfyUI refuses the workflow: {error.read().decode()}") from error
    return calls_of(number, work)


def calls_of(number: str, work: Path) -> list[dict[str, Any]]:
    """Wait for the end of what was queued under a number; return the calls of the model."""
    while not (history := ask(f"history/{number}")):
        time.sleep(0.2)
    status = history[number]["status"]
    if status["status_str"] != "success":
        raise SystemExit(json.dumps(status, indent=1)[:3000])
    return [torch.load(file) for file in sorted((work / "calls").iterdir())]


def compare(family: str, what: str, file: Path, calls: list[dict[str, Any]], work: Path) -> Row:
    """Return how far ComfyUI's answers are from ours on the same inputs."""
    model, adapter = adapted(family, file, work)
    with torch.no_grad():
        differences = [distance(answer(family, model, call), call["answer"]) for call in calls]
    return Row(
        family,
        what,
        ranks_of(family, adapter.call.schedule, calls),
        sum(difference > TOLERANCE for difference in differences),
        max(differences),
    )


def adapted(family: str, file: Path, work: Path) -> tuple[Any, Any]:
    """Return diffusers' model with an adapter file on it, and the adapter."""
    model = MODELS[family].make()
    model.load_state_dict(load_file(work / family / "weights.safetensors"))
    return model, load_adapter(model.eval(), file)


def ranks_of(family: str, schedule: RankSchedule, calls: list[dict[str, Any]]) -> list[int]:
    """Return the rank that a schedule gives each call."""
    t = torch.stack([t_of(family, call)[0] for call in calls])
    ranks: list[int] = schedule.active_rank(t).tolist()
    return ranks


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max())


def keep(path: Path, version: str, found: dict[str, Any]) -> None:
    """Put facts of a version's nodes into the file beside those that are there."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[version] = {**kept.get(version, {}), **found}
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comfyui", type=Path, required=True, help="a checkout of ComfyUI")
    parser.add_argument("--python", default=sys.executable, help="Python that can run it")
    parser.add_argument("--family", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--facts", type=Path, help="JSON file that gets what its nodes take")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_models(work, options.family, RankSchedule(RANK, LEAST))
        jobs, rows = prepare(work, options.family), []
        with server(options.comfyui, options.python, work):
            version = ask("system_stats")["system"].get("comfyui_version", "unknown")
            if options.facts:
                keep(options.facts, version, facts(list(jobs.values())))
            for name, workflow in jobs.items():
                stem, _, what = name.partition(" ")
                family, _, targets = stem.partition("-")
                calls = run(probed(workflow, family), work)
                file = work / family / f"{targets}.safetensors"
                rows.append(compare(family, f"{targets}, {what}", file, calls, work))
        print(f"ComfyUI {version}\n\n| | calls | ranks | wrong answers | largest difference |")
        print("|---|---|---|---|---|")
        for row in rows:
            ranks = f"{row.ranks[0]} to {row.ranks[-1]}"
            print(f"| {row.family}: {row.what} | {len(row.ranks)} | {ranks} | {row.wrong} "
                  f"| {row.difference:.1e} |")  # fmt: skip
    if any(row.wrong for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
