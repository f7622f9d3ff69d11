"""A checkpoint holds nothing twice, and all of it comes back bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_denoisers import make_unet, stir
from torch import Tensor
from training_runs import named, recipe_values, run, same_adapter, same_tensors, trained_in

from tlora_cli import UserError, attach
from tlora_cli.cli.app import main
from tlora_cli.formats import checkpoint_file, read_adapter
from tlora_cli.injection.saved_tensors import save_trained, start_tensors
from tlora_cli.methods import METHODS, starts
from tlora_cli.recipe.models import Recipe
from tlora_cli.training import state
from tlora_cli.training.checkpoint_files import ADAPTER_FILE, STATE_FILE
from tlora_cli.training.disk_space import DiskSpace, disk_space
from tlora_cli.training.run_folder import RunFolder, checkpoints

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs `tlora` in this process and gives its status and message."""

    def tlora(*arguments: object) -> tuple[int, str]:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        status = main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return status, out + err

    return tlora


def settings(method: str, **changes: Any) -> dict[str, Any]:
    sizes = {"rank": {"rank": 4}, "blocks": {"blocks": 4}, "none": {}}
    adapter = {"method": method, **sizes[METHODS[method].size]}
    return {"adapter": adapter, "concept__prior": None, "train__steps": 4, **changes}


def header_of(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())


def take_back(folder: RunFolder, step: int = 4) -> Path:
    """Make it a run that was killed before the checkpoint of a step; return its result."""
    shutil.rmtree(folder.checkpoints / f"checkpoint-{step:06d}")
    return folder.adapter.rename(folder.path.parent / "whole.safetensors")


# --- what is in them ------------------------------------------------------------------------------


OF_EACH_KIND = ("tlora", "lora", "adalora", "oft", "textual_inversion")
"""Methods with a start beside, without one, with running statistics, without ranks, of words."""


@pytest.mark.parametrize(
    "method",
    [pytest.param(one, marks=() if one in OF_EACH_KIND else pytest.mark.full) for one in METHODS],
)
def test_every_method_resumes_from_its_files_and_their_adapter_is_the_results(
    method: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    run(tiny_sdxl, tmp_path, **settings(method))
    folder = RunFolder(tmp_path / "run")
    last = folder.checkpoints / "checkpoint-000004"
    assert same_adapter(folder.adapter, last / ADAPTER_FILE)
    # A start that is subtracted is written once; what stands alone is a file like any other.
    has_start = (folder.checkpoints / "start.safetensors").exists()
    assert has_start is bool(METHODS[method].low_rank and METHODS[method].update.copies == 2)
    if not has_start and method != "adalora":
        assert same_tensors(folder.adapter, last / ADAPTER_FILE)
        own, other = header_of(folder.adapter), header_of(last / ADAPTER_FILE)
        assert own == other
    whole = take_back(folder)
    again = run(tiny_sdxl, tmp_path, resume=True, **settings(method))
    assert again.adapter and same_tensors(whole, again.adapter)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"output__dtype": "float16"}, marks=pytest.mark.full),
        {"output__dtype": "bfloat16", "train__ema": {"decay": 0.4}},
        {"train__optimizer": {"name": "prodigy", "lr": 1.0}},
    ],
)
def test_number_formats_averages_and_optimizers(
    changes: dict[str, Any], tiny_flux: Path, tmp_path: Path
) -> None:
    run(tiny_flux, tmp_path, **settings("tlora", **changes))
    folder = RunFolder(tmp_path / "run")
    whole = take_back(folder)
    again = run(tiny_flux, tmp_path, resume=True, **settings("tlora", **changes))
    assert again.adapter and same_tensors(whole, again.adapter)
    wanted = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
    found = read_adapter(again.adapter, ()).layers
    exact = read_adapter(folder.checkpoints / "checkpoint-000004", ()).layers
    for name, pair in exact.items():
        for one, other in zip(pair, found[name], strict=True):
            assert one.dtype == torch.float32, "a checkpoint is never rounded"
            assert wanted[other.dtype] == changes.get("output__dtype", "float32")
            assert torch.equal(one.to(other.dtype), other)


def test_nothing_is_there_twice(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Trained values and two moments in a checkpoint; the frozen start once a run."""
    given = settings("tlora", adapter={"method": "tlora", "rank": 32, "targets": "linear"})
    run(tiny_sdxl, tmp_path, **given)
    folder = RunFolder(tmp_path / "run")
    last = folder.checkpoints / "checkpoint-000004"
    saved = torch.load(last / STATE_FILE, weights_only=True)
    held = trained_in(last)
    values = sum(tensor.nbytes for tensor in held.values())
    moments = [t for one in saved["optimizer"]["state"].values() for t in one.values()]
    assert sum(tensor.nbytes for tensor in moments if tensor.ndim) == 2 * values
    del saved["optimizer"]
    assert not [key for key, value in saved.items() if isinstance(value, dict) and value]
    start = load_file(folder.checkpoints / "start.safetensors")
    assert {named(key) for key in start} == {f"{name}0" for name in held}
    size = sum(file.stat().st_size for file in last.iterdir())
    assert 3 * values < size < 3 * values + 1200 * len(held)

    space = disk_space_of(tiny_sdxl, tmp_path, given)
    assert space.checkpoint == pytest.approx(size, rel=0.03)
    real = (folder.checkpoints / "start.safetensors").stat().st_size
    assert space.start == pytest.approx(real, rel=0.05)
    assert space.result == pytest.approx(folder.adapter.stat().st_size, rel=0.05)
    # Two checkpoints are kept, and the new one is written before the oldest goes.
    train = Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path, **given)).train
    train = train.model_copy(update={"steps": 100})
    assert space.of_run(train) == 3 * space.checkpoint + space.start + space.result
    left = space.of_run(train, step=98, present=2, started=True)
    assert left == space.checkpoint + space.result


@pytest.mark.parametrize(
    "changes",
    [
        {"output__dtype": "float16", "train__ema": {"decay": 0.4}},
        {"adapter": {"method": "adalora", "rank": 32, "targets": "linear"}},
        pytest.param({"train__optimizer": {"name": "prodigy", "lr": 1.0}}, marks=pytest.mark.full),
        pytest.param(
            {"adapter": {"method": "lora", "rank": 32, "targets": "linear"}},
            marks=pytest.mark.full,
        ),
    ],
)
def test_plans_are_the_sizes_of_the_files(
    changes: dict[str, Any], tiny_sdxl: Path, tmp_path: Path
) -> None:
    adapter = {"method": "tlora", "rank": 32, "targets": "linear"}
    given = {"adapter": adapter, "train__steps": 2, **changes}
    run(tiny_sdxl, tmp_path, **given)
    folder = RunFolder(tmp_path / "run")
    space = disk_space_of(tiny_sdxl, tmp_path, given)
    size = sum(file.stat().st_size for file in checkpoints(folder.checkpoints)[0].iterdir())
    assert space.checkpoint == pytest.approx(size, rel=0.03)
    assert space.result == pytest.approx(folder.adapter.stat().st_size, rel=0.05)


def disk_space_of(tiny: Path, folder: Path, given: dict[str, Any]) -> DiskSpace:
    """Return the plan of a recipe, as `tlora validate` makes it, on the meta device."""
    from tlora_cli.tools.preflight.memory import attach_planned, planned_denoiser

    recipe = Recipe.model_validate(recipe_values(tiny, folder, **given))
    return disk_space(attach_planned(recipe, planned_denoiser(recipe)), recipe)


@pytest.mark.parametrize("method", ["tlora", "pissa", "adalora", "lora"])
def test_convolutions_come_back_in_their_shape(method: str, tmp_path: Path) -> None:
    adapter = stir(attach(make_unet(), method, 2, targets="all"))
    adapter.save(tmp_path / "whole.safetensors")
    start = start_tensors(adapter)
    folder = tmp_path / "checkpoints"
    said = checkpoint_file.keep_start(folder / "start.safetensors", start) if start else None
    (folder / "checkpoint-000001").mkdir(parents=True)
    save_trained(adapter, folder / "checkpoint-000001" / ADAPTER_FILE, said)
    file = folder / "checkpoint-000001" / ADAPTER_FILE
    assert same_adapter(tmp_path / "whole.safetensors", file)
    shapes = {down.ndim for down, _ in read_adapter(file, ()).layers.values()}
    assert shapes == {2, 4}


# --- runs of before -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("tlora", {"train__ema": {"decay": 0.4}, "output__dtype": "float16"}),
        pytest.param("adalora", {}, marks=pytest.mark.full),
        pytest.param("oft", {"train__ema": {"decay": 0.4}}, marks=pytest.mark.full),
    ],
)
def test_a_run_of_before_goes_on_to_the_same_bits(
    method: str,
    changes: dict[str, Any],
    tiny_sdxl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its checkpoints held all tensors of the adapter in the state, and no start lay beside."""
    real = state.save_checkpoint

    def as_before(folder: Path, now: state.TrainingState, space: DiskSpace) -> Path:
        target = real(folder, now, space)
        (folder / "start.safetensors").unlink(missing_ok=True)
        saved = now.to_dict()
        del saved["running"]
        saved.pop("weights", None)
        saved |= {"version": 1, "adapter": now.adapter.state_dict()}
        if now.average:
            saved["average"] = now.average.state_dict()
        torch.save(saved, target / STATE_FILE)
        with now.as_result():
            now.adapter.save(target / ADAPTER_FILE, torch.float16)
        return target

    given = settings(method, **changes)
    whole = run(tiny_sdxl, tmp_path / "whole", **given)
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_checkpoint", as_before)
        run(tiny_sdxl, tmp_path / "old", **given)
    old = RunFolder(tmp_path / "old" / "run")
    take_back(old)
    again = run(tiny_sdxl, tmp_path / "old", resume=True, **given)
    assert whole.adapter and again.adapter
    assert same_tensors(whole.adapter, again.adapter)
    assert same_adapter(
        checkpoints(old.checkpoints)[-1] / ADAPTER_FILE,
        tmp_path / "whole" / "run" / "checkpoints" / "checkpoint-000004" / ADAPTER_FILE,
    )


# --- damage ---------------------------------------------------------------------------------------


def flip(file: Path) -> None:
    """Turn one bit in the middle of a file's tensors."""
    tensors = load_file(file)
    header = header_of(file)
    key = max(tensors, key=lambda one: tensors[one].numel())
    bits = tensors[key].view(torch.int32).flatten()
    bits[len(bits) // 2] ^= 1
    save_file(tensors, file, metadata=header)


def hurt(file: Path, damage: str) -> None:
    if damage == "bit":
        flip(file)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        file.unlink()


DAMAGES = ["bit", pytest.param("cut", marks=pytest.mark.full), "gone"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_adapter_file_is_passed_over(
    damage: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    run(tiny_sdxl, tmp_path, **settings("lora"))
    folder = RunFolder(tmp_path / "run")
    whole = folder.adapter.rename(tmp_path / "whole.safetensors")
    hurt(folder.checkpoints / "checkpoint-000004" / ADAPTER_FILE, damage)
    with pytest.warns(UserWarning, match="checkpoint-000004 can't be loaded"):
        again = run(tiny_sdxl, tmp_path, resume=True, **settings("lora"))
    assert again.adapter and same_tensors(whole, again.adapter)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_seed_gives_a_lost_start_again(
    damage: str, cli: Cli, tiny_sdxl: Path, tmp_path: Path
) -> None:
    run(tiny_sdxl, tmp_path, **settings("tlora"))
    folder = RunFolder(tmp_path / "run")
    start, before = folder.checkpoints / "start.safetensors", tmp_path / "before.safetensors"
    shutil.copy(start, before)
    hurt(start, damage)
    last = folder.checkpoints / "checkpoint-000004"
    status, said = cli("sample", "--adapter", last, "--prompt", "a V*", "--output", tmp_path / "o")
    assert status == 2 and not list((tmp_path / "o").glob("*"))
    assert (f"tlora convert {last}" if damage == "gone" else "resume the run") in said
    whole = take_back(folder)
    again = run(tiny_sdxl, tmp_path, resume=True, **settings("tlora"))
    assert again.adapter and same_tensors(whole, again.adapter)
    assert same_tensors(start, before)


def test_a_machine_on_which_the_seed_gives_other_bits_takes_the_file(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny_sdxl, tmp_path, **settings("tlora"))
    folder = RunFolder(tmp_path / "run")
    whole = take_back(folder)
    real = starts.haar_frames

    def other_bits(*arguments: Any) -> Tensor:
        return real(*arguments) * (1 + 2e-7)

    monkeypatch.setattr(starts, "haar_frames", other_bits)
    shutil.copytree(tmp_path / "run", tmp_path / "lost" / "run")
    again = run(tiny_sdxl, tmp_path, resume=True, **settings("tlora"))
    assert again.adapter and same_tensors(whole, again.adapter)

    lost = tmp_path / "lost" / "run" / "checkpoints" / "start.safetensors"
    there = {**settings("tlora"), "output__dir": str(tmp_path / "lost" / "run")}
    for damage, words in (
        ("bit", "the start of the run is damaged"),
        ("cut", "the start of the run is damaged"),
        ("gone", "the start of the run is missing: start.safetensors"),
    ):
        hurt(lost, damage)
        with pytest.raises(UserError, match=words) as told:
            run(tiny_sdxl, tmp_path, resume=True, **there)
        assert told.value.do and told.value.do.startswith("put it back")
        assert [one.name for one in checkpoints(lost.parent)] == ["checkpoint-000002"]
        if lost.exists():
            shutil.copy(folder.checkpoints / "start.safetensors", lost)


# --- in other hands -------------------------------------------------------------------------------


def test_a_copied_file_says_what_is_missing_and_a_converted_one_is_whole(
    cli: Cli, tiny_sdxl: Path, tmp_path: Path
) -> None:
    run(tiny_sdxl, tmp_path, **settings("tlora"))
    folder = RunFolder(tmp_path / "run")
    last = folder.checkpoints / "checkpoint-000004"
    (tmp_path / "far").mkdir()
    copied = shutil.copy(last / ADAPTER_FILE, tmp_path / "far" / "dog.safetensors")
    command = f"tlora convert {last} --output whole.safetensors"
    for words in (
        ("sample", "--adapter", copied, "--prompt", "a V*", "--output", tmp_path / "out"),
        ("convert", copied, "--output", tmp_path / "out.safetensors"),
        ("analyze", "--adapter", copied, "--output", tmp_path / "out"),
        ("publish", copied, "--output", tmp_path / "out", "--base", "a/b", "--license", "mit"),
    ):
        status, said = cli(*words)
        assert status == 2, said
        said = " ".join(said.split())
        assert "is a training checkpoint, and the start of its run does not lie beside it" in said
        assert f"{folder.checkpoints / 'start.safetensors'}" in said
        assert "loading" not in said
        assert command in said
        assert not list(tmp_path.glob("out*"))
    # Another run's start, in the place of its own.
    other = checkpoint_file.keep_start(tmp_path / "start.safetensors", {"unet.a": torch.ones(2)})
    assert other
    status, said = cli("analyze", "--adapter", copied, "--output", tmp_path / "out")
    assert status == 2 and "does not lie beside it" in " ".join(said.split())

    whole = tmp_path / "whole.safetensors"
    assert cli("convert", last, "--output", whole)[0] == 0
    assert same_tensors(whole, folder.adapter)
    written = ("publish", last / ADAPTER_FILE, "--output", tmp_path / "hub", "--base", "a/b")
    assert cli(*written, "--license", "mit")[0] == 0
    [published] = (tmp_path / "hub").glob("*.safetensors")
    assert same_tensors(published, folder.adapter)
    public = header_of(published)
    assert public["tlora.format_version"] == "1" and "lora_adapter_metadata" in public
    assert str(tmp_path) not in "".join(public.values())
    # A link to the file is the file.
    (tmp_path / "far" / "link.safetensors").symlink_to(last / ADAPTER_FILE)
    assert same_adapter(tmp_path / "far" / "link.safetensors", folder.adapter)


@pytest.mark.parametrize("large", [False, True])
def test_a_result_is_rounded_only_where_its_format_can_hold_every_weight(
    tmp_path: Path, large: bool
) -> None:
    """float16 ends at 65504; what is larger is not lost."""
    adapter = attach(make_unet(), method="lora", rank=2)
    stir(adapter)
    if large:
        with torch.no_grad():
            next(iter(adapter.parameters())).view(-1)[0] = 7e4
    of_run = state.TrainingState(adapter, None)
    keeper = state.Checkpoints(tmp_path, of_run, torch.float16, keep=1, space=DiskSpace(0, 0, 0))
    file = tmp_path / "adapter.safetensors"
    if large:
        with pytest.warns(UserWarning, match="a weight is larger than float16 can hold"):
            keeper.write_result(0, file)
    else:
        keeper.write_result(0, file)
    written = load_file(file)
    assert {one.dtype for one in written.values()} == {torch.float32 if large else torch.float16}
    largest = max(float(p.detach().abs().max()) for p in adapter.parameters())
    kept = max(float(one.abs().max()) for one in written.values())
    assert kept == largest if large else kept == pytest.approx(largest, rel=1e-3)


def test_a_run_that_says_nothing_gives_float16(tiny_sdxl: Path, tmp_path: Path) -> None:
    values = recipe_values(tiny_sdxl, tmp_path, **settings("tlora"))
    del values["output"]["dtype"]
    assert Recipe.model_validate(values).output.dtype == "float16"
