"""Run our code on the inputs of the recorded published runs, and compare.

`tests/reference/` holds tensors recorded from the published T-LoRA modules; see its README.md.
`python tests/reference_runs.py` prints the table; `test_reference.py` asserts it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, FluxTransformer2DModel, UNet2DConditionModel
from layers import ortho, plain
from safetensors.torch import load_file
from torch import Tensor

from tlora_cli import Adapter, RankSchedule, attach
from tlora_cli.families import FAMILIES
from tlora_cli.formulas.masked_low_rank import masked_low_rank
from tlora_cli.formulas.objectives import squared_error

REFERENCE = Path(__file__).parent / "reference"
RUNS = ("sdxl_lora_none", "sdxl_ortho_lora_last", "sdxl_ortho_lora_middle", "flux_lora")


@dataclass(frozen=True)
class Row:
    """One line of the agreement table: the largest relative difference and what is allowed."""

    what: str
    difference: float
    allowed: float


def difference(got: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected value."""
    got = got.detach()
    return float((got.double() - expected.double()).abs().max() / expected.double().abs().max())


class Run:
    """A recorded run: the base model, its inputs, and our adapter at its start."""

    def __init__(self, name: str) -> None:
        folder = REFERENCE / name
        self.case: dict[str, Any] = json.loads((folder / "case.json").read_text())
        self.data = load_file(folder / "run.safetensors")
        self.family = FAMILIES[name.split("_")[0]]
        config = self.case[f"{self.family.denoiser}_config"]
        model_class = {"sdxl": UNet2DConditionModel, "flux": FluxTransformer2DModel}
        self.denoiser = model_class[self.family.name].from_config(config)
        self.denoiser.load_state_dict(load_file(folder / f"{self.family.denoiser}.safetensors"))
        self.denoiser.eval()
        method = "tlora" if "ortho" in name else "vanilla_tlora"
        self.adapter = attach(self.denoiser, method, self.case["rank"], self.case["min_rank"])
        load_published(self.adapter, load_file(folder / "adapter_init.safetensors"))

    def predict(self, noisy: Tensor, t: Tensor) -> Tensor:
        """Call the denoiser as the recording did."""
        data = self.data
        if self.family.name == "sdxl":
            conditioning = {
                "prompt_embeds": data["encoder_hidden_states"],
                "text_embeds": data["text_embeds"],
                "time_ids": data["time_ids"],
            }
            return self.family.predict(self.denoiser, noisy, t, conditioning, 1.0)
        return self.denoiser(
            hidden_states=noisy,
            timestep=t.float() / 1000,
            guidance=torch.full_like(t, self.case["guidance"], dtype=torch.float32),
            pooled_projections=data["pooled_projections"],
            encoder_hidden_states=data["encoder_hidden_states"],
            txt_ids=data["txt_ids"],
            img_ids=data["img_ids"],
        ).sample

    def train(self) -> tuple[list[float], list[int]]:
        """Repeat the recorded optimizer steps; return the losses and active ranks."""
        settings = dict(self.case["optimizer"])
        settings.pop("name")
        optimizer = torch.optim.AdamW(self.adapter.parameters(), **settings)
        objective = self.family.objective(self.case.get("noise_scheduler", {}), "auto")
        losses, ranks = [], []
        for t, noise in zip(self.data["timesteps"], self.data["noise"], strict=True):
            x, t = self.data["latents"], t.view(1)
            prediction = self.predict(objective.corrupt(x, noise, t), t)
            loss = squared_error(prediction, objective.target(x, noise, t)).mean()
            ranks.append(int(self.adapter.call.active_rank))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
        return losses, ranks

    @torch.no_grad()
    def probe(self) -> Tensor:
        """Return the trained model's answers at the recorded probe timesteps."""
        latents = self.data["latents"]
        times = self.data["probe_timesteps"]
        return torch.cat([self.predict(latents, t.view(1)) for t in times])

    @torch.no_grad()
    def sample(self) -> Tensor:
        """Repeat the guided Euler trajectory with a stock scheduler."""
        sampler = self.case["sampler"]
        scheduler = EulerDiscreteScheduler(
            **self.case["noise_scheduler"],
            timestep_spacing=sampler["timestep_spacing"],
            steps_offset=sampler["steps_offset"],
        )
        scheduler.set_timesteps(sampler["steps"])
        data = self.data
        text = torch.cat([data["sample_negative_embeds"], data["encoder_hidden_states"]])
        pooled = torch.cat([data["sample_negative_text_embeds"], data["text_embeds"]])
        conditioning = {
            "prompt_embeds": text,
            "text_embeds": pooled,
            "time_ids": data["time_ids"].repeat(2, 1),
        }
        latents = data["sample_start"] * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            doubled = scheduler.scale_model_input(torch.cat([latents] * 2), t)
            both = self.family.predict(self.denoiser, doubled, t, conditioning, 1.0)
            without, with_text = both.chunk(2)
            guided = without + sampler["guidance_scale"] * (with_text - without)
            latents = scheduler.step(guided, t, latents).prev_sample
        return latents


def load_published(adapter: Adapter, tensors: dict[str, Tensor]) -> None:
    """Put the published names' tensors into our parameters."""
    with torch.no_grad():
        for name, layer in adapter.layers.items():
            block, projection = name.rsplit(".attn", 1)
            number, projection = projection.split(".", 1)
            projection = {"to_out.0": "to_out"}.get(projection, projection)
            projection = projection.replace("add_", "to_")
            prefix = f"{block}.attn{number}.processor.{projection}_lora"
            if layer.copies == 1:
                layer.A.copy_(tensors[f"{prefix}.down.weight"])
                layer.B.copy_(tensors[f"{prefix}.up.weight"])
            else:
                names = {
                    "A": "q_layer.weight",
                    "B": "p_layer.weight",
                    "S": "lambda_layer",
                    "A0": "base_q.weight",
                    "B0": "base_p.weight",
                    "S0": "base_lambda",
                }
                for ours, theirs in names.items():
                    tensor = getattr(layer, ours)
                    tensor.copy_(tensors[f"{prefix}.{theirs}"].view_as(tensor))


def compare_layers() -> list[Row]:
    """Compare a single layer's outputs and gradients."""
    data = load_file(REFERENCE / "layers.safetensors")
    rows = []
    for kind in ("lora.none", "ortho_lora.last", "ortho_lora.middle", "ortho_lora.principal"):
        for active in (8, 5, 1):
            rows += _compare_layer(data, kind, active)
    return rows


def _compare_layer(data: dict[str, Tensor], kind: str, active: int) -> list[Row]:
    state = {k.removeprefix(f"{kind}.state."): v for k, v in data.items() if f"{kind}.state" in k}
    if kind.startswith("lora"):
        layer = plain(state["down.weight"].clone(), state["up.weight"].clone())
        gradients = {"down.weight": layer.A, "up.weight": layer.B}
    else:
        start = state["base_q.weight"], state["base_lambda"][0], state["base_p.weight"]
        now = state["q_layer.weight"], state["lambda_layer"][0], state["p_layer.weight"]
        layer = ortho([x.clone() for x in start], [x.clone() for x in now])
        gradients = {"q_layer.weight": layer.A, "lambda_layer": layer.S, "p_layer.weight": layer.B}
    x = data[f"{kind}.input"].clone().requires_grad_()
    mask = (torch.arange(8) < active).float().repeat(layer.copies).view(1, -1)
    output = masked_low_rank(x, *layer.factors(), mask)
    output.backward(data[f"{kind}.grad_output"])
    label, recorded = f"layer {kind}, {active} active", f"{kind}.active{active}"
    pairs = {"output": output, "grad_input": x.grad}
    pairs |= {f"grad.{name}": parameter.grad for name, parameter in gradients.items()}
    return [
        Row(f"{label}: {name}", difference(got.view_as(want), want), 1e-5)
        for name, got in pairs.items()
        if got is not None and (want := data[f"{recorded}.{name}"]) is not None
    ]


def compare_schedules() -> list[Row]:
    """Count the timesteps at which the active rank differs, in all nine settings."""
    rows = []
    for case in json.loads((REFERENCE / "rank_schedule.json").read_text()):
        schedule = RankSchedule(
            case["max_rank"],
            case["min_rank"],
            case["alpha"],
            num_train_timesteps=case["num_train_timesteps"],
        )
        ours = [schedule.active_rank(t) for t in range(1000)]
        wrong = sum(a != b for a, b in zip(ours, case["active_rank"], strict=True))
        label = f"schedule R={case['max_rank']} r_min={case['min_rank']} alpha={case['alpha']}"
        rows.append(Row(f"{label}: wrong entries", wrong, 0))
    return rows


def compare_run(name: str) -> list[Row]:
    """Compare losses, ranks, probe outputs and (SDXL) the sampling trajectory of a run."""
    run = Run(name)
    losses, ranks = run.train()
    wrong = sum(a != int(b) for a, b in zip(ranks, run.data["active_rank"], strict=True))
    expected = run.data["losses"]
    worst = ((torch.tensor(losses).double() - expected).abs() / expected).max()
    rows = [
        Row(f"{name}: wrong active ranks in 20 steps", wrong, 0),
        Row(f"{name}: losses of 20 steps", float(worst), 1e-4),
        Row(f"{name}: probe outputs", difference(run.probe(), run.data["probe_outputs"]), 1e-4),
    ]
    if "sample_latents" in run.data:
        end = difference(run.sample(), run.data["sample_latents"])
        rows.append(Row(f"{name}: guided 8-step trajectory", end, 1e-3))
    return rows


def table() -> list[Row]:
    """Return every comparison."""
    rows = compare_schedules() + compare_layers()
    for name in RUNS:
        rows += compare_run(name)
    return rows


if __name__ == "__main__":
    for row in table():
        sign = "ok" if row.difference <= row.allowed else "WRONG"
        print(f"{row.what:62s} {row.difference:9.2e}  (allowed {row.allowed:.0e})  {sign}")


def base_folder(tmp_path: Path, run: Run) -> Path:
    """Write the configuration of a recorded run's base as a diffusers folder has it."""
    folder = tmp_path / "base" / run.family.denoiser
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(run.case[f"{run.family.denoiser}_config"]))
    return folder.parent
