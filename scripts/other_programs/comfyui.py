"""Run our ComfyUI workflow and our node in the real ComfyUI, and compare with tlora itself.

    python scripts/other_programs/comfyui.py --comfyui FOLDER [--python PYTHON]

FOLDER is a checkout of ComfyUI; PYTHON has what it needs. A small random SDXL and FLUX of
ComfyUI's own classes are put behind the workflow's loaders, the workflow is posted to the server as
it stands otherwise, and each answer of the model is compared with that of diffusers' class and our
masked adapter on the same input. Takes a minute or two on a CPU. Prints a table; exits 1 if an
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from tlora_cli import RankSchedule
from tlora_cli.families import FAMILIES
from tlora_cli.formats import AdapterInfo, AdapterWeights, tlora_file
from tlora_cli.injection.load import load_adapter

PORT = 8197
RANK, LEAST = 8, 3
TOLERANCE = 1e-5
SDXL: dict[str, Any] = {
    "block_out_channels": (32, 64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 1, 2),
    "cross_attention_dim": 64,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 6 * 256 + 32,
}
SDXL_THERE: dict[str, Any] = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32,
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "num_head_channels": 64,
    "transformer_depth": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": 2,
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2], "use_spatial_transformer": True,
    "use_linear_in_transformer": True, "context_dim": 64, "adm_in_channels": 6 * 256 + 32,
    "num_classes": "sequential", "legacy": False, "use_temporal_attention": False,
}  # fmt: skip
FLUX: dict[str, Any] = {
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 64,
    "pooled_projection_dim": 32,
    "guidance_embeds": True,
    "axes_dims_rope": (8, 12, 12),
}
FLUX_THERE: dict[str, Any] = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2,
    "vec_in_dim": 32, "context_in_dim": 64, "hidden_size": 64, "mlp_ratio": 4.0, "num_heads": 2,
    "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000,
    "qkv_bias": True, "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
MODELS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "sdxl": (UNet2DConditionModel, SDXL, SDXL_THERE),
    "flux": (FluxTransformer2DModel, FLUX, FLUX_THERE),
}
"""Family -> diffusers' class, its configuration, the same model's in ComfyUI."""
STANDS_FOR = {
    "CheckpointLoaderSimple": "ProbeCheckpoint",
    "UNETLoader": "ProbeDenoiser",
    "DualCLIPLoader": "ProbeWords",
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


def make_models(work: Path, schedule: RankSchedule) -> None:
    """Write small random models, and adapters of the schedule's rank for their layers."""
    for family, (cls, config, there) in MODELS.items():
        torch.manual_seed(3)
        folder = work / family
        folder.mkdir()
        model = cls(**config)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()},
                  folder / "weights.safetensors")  # fmt: skip
        (folder / "comfyui.json").write_text(json.dumps(there))
        kind = FAMILIES[family]
        for targets in kind.named_targets if family == "sdxl" else ("linear",):
            layers = {}
            for name, layer in kind.target_layers(model, targets).items():
                out, *inner = layer.weight.shape
                rank = 2 * schedule.rank
                down = torch.randn(rank, *inner) / layer.weight[0].numel() ** 0.5
                up = torch.randn(out, rank, *[1 for _ in inner[1:]]) / rank**0.5
                layers[name] = (down, up)
            info = AdapterInfo(method="tlora", placeholder="sks", class_name="dog")
            weights = AdapterWeights(layers, 2, schedule, family, info)
            file = folder / f"{targets}.safetensors"
            tlora_file.write(file, weights, timestep_scale=kind.timestep_scale)


def prepare(work: Path) -> dict[str, dict[str, Any]]:
    """Return what is to be run: name -> workflow; put files where ComfyUI looks for them."""
    loras, jobs = work / "models" / "loras", {}
    loras.mkdir(parents=True)
    (work / "custom_nodes").mkdir()
    shutil.copytree(Path(__file__).parent / "comfyui_probe", work / "custom_nodes" / "probe")
    tlora("comfyui", work)
    for family in MODELS:
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
    cls, config, _ = MODELS[family]
    if not folder.exists():
        cls(**config).save_config(folder / FAMILIES[family].denoiser)
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
    cls, config, _ = MODELS[family]
    model = cls(**config)
    model.load_state_dict(load_file(work / family / "weights.safetensors"))
    return model, load_adapter(model.eval(), file)


def ranks_of(family: str, schedule: RankSchedule, calls: list[dict[str, Any]]) -> list[int]:
    """Return the rank that a schedule gives each call."""
    scale = FAMILIES[family].timestep_scale or 1.0
    t = torch.stack([call["timesteps"][0].double() * scale for call in calls])
    ranks: list[int] = schedule.active_rank(t).tolist()
    return ranks


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / ours.abs().max())


def answer(family: str, model: Any, call: dict[str, Any]) -> torch.Tensor:
    """Return diffusers' answer to a call of ComfyUI's model."""
    x, context, y = call["x"], call["context"], call["y"]
    batch, channels, height, width = x.shape
    if family == "sdxl":
        size = [8 * height, 8 * width]
        ids = torch.tensor([[*size, 0, 0, *size]]).float().expand(batch, -1)
        words = {"text_embeds": y[:, :32], "time_ids": ids}
        out = model(x, call["timesteps"], context, added_cond_kwargs=words).sample
        return torch.as_tensor(out)
    rows, columns = height // 2, width // 2
    tokens = x.view(batch, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    ids = torch.zeros(rows, columns, 3)
    ids[..., 1] = torch.arange(rows)[:, None]
    ids[..., 2] = torch.arange(columns)[None]
    out = model(
        hidden_states=tokens.reshape(batch, rows * columns, channels * 4),
        encoder_hidden_states=context,
        pooled_projections=y,
        timestep=call["timesteps"],
        guidance=call["guidance"],
        img_ids=ids.view(-1, 3),
        txt_ids=torch.zeros(context.shape[1], 3),
    ).sample
    out = out.view(batch, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return torch.as_tensor(out.reshape(batch, channels, height, width))


def keep(path: Path, version: str, found: dict[str, Any]) -> None:
    """Put a version's facts into the file beside those of others."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**kept, version: found}, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comfyui", type=Path, required=True, help="a checkout of ComfyUI")
    parser.add_argument("--python", default=sys.executable, help="Python that can run it")
    parser.add_argument("--facts", type=Path, help="JSON file that gets what its nodes take")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_models(work, RankSchedule(RANK, LEAST))
        jobs, rows = prepare(work), []
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
