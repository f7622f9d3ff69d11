"""Eager, compiled and recorded steps compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from meta_runs import META, meta_run
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from training_runs import recipe_values, run, same_tensors, tlora, write_recipe

from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.models import Recipe
from tlora_cli.training import assemble, execution
from tlora_cli.training.execution import Recorded, choose_execution, make_passes, missing_compiler

CPU = torch.device("cpu")
LACKING = missing_compiler(CPU)
needs_compiler = pytest.mark.skipif(LACKING is not None, reason=f"needs {LACKING}")
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA GPU, which this machine lacks"
)


def losses(folder: Path) -> list[float]:
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


# --- compile ----------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.full
def test_a_compiled_run_is_the_eager_run_and_resumes_bit_for_bit(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    """With previews, which have other shapes and run as they are."""
    previews = {"train__preview": {"every": 2, "prompts": ["a V*"]}}
    whole, halves, eager = tmp_path / "whole", tmp_path / "halves", tmp_path / "eager"
    run(tiny_sdxl, eager, train__execution="eager", **previews)
    end = run(tiny_sdxl, whole, train__execution="compile", **previews)
    assert losses(whole) == pytest.approx(losses(eager), rel=1e-5)
    run(tiny_sdxl, halves, train__execution="compile", train__steps=4, **previews)
    resumed = run(tiny_sdxl, halves, resume=True, train__execution="compile", **previews)
    assert end.adapter is not None and resumed.adapter is not None
    assert same_tensors(end.adapter, resumed.adapter)
    assert losses(halves) == losses(whole)


def test_compiling_without_a_compiler_is_refused(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "missing_compiler", lambda device: "a C++ compiler")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler") as caught:
        run(tiny_sdxl, tmp_path, train__execution="compile")
    assert "execution: eager" in str(caught.value)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_no_compiler_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none_there() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_there)
    assert "g++" in str(missing_compiler(CPU))


# --- auto -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "compiler", "device", "expected"),
    [
        ({"train__steps": 3000}, None, "cpu", "compile"),
        ({"train__steps": 2999}, None, "cpu", "eager"),
        ({"train__steps": 1500, "train__accumulation": 2}, None, "cpu", "compile"),
        ({"train__steps": 5000}, "a compiler", "cpu", "eager"),
        ({"train__steps": 5000}, None, "cuda", "eager"),
        ({"train__steps": 5000, "adapter": {"method": "svdiff"}}, None, "cpu", "eager"),
        ({"train__steps": 5000, "train__execution": "eager"}, None, "cpu", "eager"),
        ({"train__steps": 5, "train__execution": "compile"}, None, "cpu", "compile"),
    ],
)
def test_auto_compiles_what_is_long_enough(
    changes: dict[str, Any],
    compiler: str | None,
    device: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution, "missing_compiler", lambda device: compiler)
    recipe = Recipe.model_validate(recipe_values(Path("tiny-sdxl"), tmp_path, **changes))
    assert choose_execution(recipe, torch.device(device)) == expected


# --- recorded ---------------------------------------------------------------------------------


def again(run: Callable[[], None]) -> Callable[[], None]:
    """Record as a CUDA graph does, but repeat by running; what is read must stay in its place."""
    run()
    return run


class Watched(Recorded):
    """As a graph: gradients are written where they were; notices if a buffer moves."""

    def _run(self) -> None:
        assert self._buffers is not None
        batch = self._buffers
        tensors = [batch.latents, batch.noise, batch.timesteps, *batch.conditioning.values()]
        places = [tensor.data_ptr() for tensor in tensors]
        self.places = getattr(self, "places", places)
        assert places == self.places
        super()._run()
        for place, parameter in zip(self._gradients, self._parameters, strict=False):
            assert (place is None) == (parameter.grad is None)
            if place is not None and parameter.grad is not None:
                place.copy_(parameter.grad)


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ("tiny_sdxl", {"train__batch_size": 2}),
        ("tiny_sdxl", {"concept__prior": {"count": 2}, "train__max_grad_norm": 0.01}),
        ("tiny_sdxl", {"adapter": {"method": "adalora", "rank": 4}}),
        ("tiny_sdxl", {"adapter": {"rank": 4, "schedule": {"axis": "logsnr"}}}),
        ("tiny_flux", {}),
    ],
)
def test_recorded_steps_are_the_eager_ones(
    base: str,
    changes: dict[str, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = request.getfixturevalue(base)
    monkeypatch.setattr(
        "tlora_cli.injection.adapter.can_fold", lambda *parts, **_: False
    )  # not on a GPU
    eager = run(tiny, tmp_path / "eager", **changes)

    def recorded(kind: str, passes: Any, denoiser: Any, adapter: Any, own: Any, _: Any) -> Recorded:
        return Watched(passes, own, again)

    monkeypatch.setattr(assemble, "make_passes", recorded)
    replayed = run(tiny, tmp_path / "recorded", **changes)
    assert eager.adapter is not None and replayed.adapter is not None
    assert same_tensors(eager.adapter, replayed.adapter)
    assert losses(tmp_path / "recorded") == losses(tmp_path / "eager")


class NothingFromTheHost(TorchDispatchMode):
    """Fails if an operation makes a tensor on the host, which a graph would copy once only."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # every operation, views as well
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor) and tensor.device.type == "cpu":
                raise AssertionError(f"{func} makes a tensor on the host")
        return result


@pytest.mark.parametrize(
    ("family", "method", "axis"),
    [
        ("sdxl", "tlora", "timestep"),
        ("sdxl", "tlora", "logsnr"),
        ("sdxl", "lora", "timestep"),
        ("flux", "tlora", "timestep"),
    ],
)
def test_what_is_recorded_takes_nothing_from_the_host(
    family: str, method: str, axis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(run: Callable[[], None]) -> Callable[[], None]:
        run()  # a first run may fill caches

        def repeat() -> None:
            with NothingFromTheHost():
                run()

        repeat()
        return repeat

    adapter = {"schedule": {"axis": axis}}
    loop = meta_run(tmp_path, monkeypatch, family, method, adapter=adapter)
    models = loop.ready.models
    assert models.device == META
    loop.step.passes = Recorded(loop.step.passes, list(models.adapter.parameters()), watched)
    loop._step()
    loop._step()
    assert loop.state.step == 2


def test_a_graph_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        make_passes("cuda_graph", lambda batch: batch.latents, None, None, [], CPU)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train__execution": "fast"}, "train.execution"),
        ({"train__execution": "cuda_graph"}, "needs a GPU, but train.device is cpu"),
        (
            {"train__execution": "compile", "adapter": {"method": "oft"}},
            "compile is for the low-rank methods, and oft is none",
        ),
        (
            {"train__execution": "cuda_graph", "train__device": "auto", "train__accumulation": 2},
            "can't accumulate",
        ),
        (
            {
                "train__execution": "cuda_graph",
                "train__device": "auto",
                "train__gradient_checkpointing": True,
            },
            "gradient_checkpointing don't go together",
        ),
        (
            {"train__execution": "compile", "train__device": "auto", "train__quantization": "nf4"},
            "quantized base don't go together",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    path = write_recipe(tmp_path / "tiny-sdxl", tmp_path, **changes)
    done = tlora("train", "--config", path)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("base", ["tiny_sdxl", "tiny_flux"])
@pytest.mark.parametrize("kind", ["compile", "cuda_graph"])
def test_on_a_gpu_the_losses_are_the_eager_ones(
    base: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind == "compile" and (lacking := missing_compiler(torch.device("cuda"))):
        pytest.skip(f"needs {lacking}")
    tiny = request.getfixturevalue(base)
    own: dict[str, Any] = {"train__device": "cuda", "train__steps": 6}
    run(tiny, tmp_path / "eager", train__execution="eager", **own)
    run(tiny, tmp_path / kind, train__execution=kind, **own)
    assert losses(tmp_path / kind) == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)
