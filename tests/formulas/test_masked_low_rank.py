"""The kernels against the plain formula: values, gradients, number formats, what is computed."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_denoisers import FAMILIES, call, close, make_unet, stir, unet_inputs
from torch import Tensor, nn
from torch._dynamo.backends.debugging import aot_eager
from torch.utils._python_dispatch import TorchDispatchMode

from tlora_cli import Adapter, attach
from tlora_cli.formulas.masked_low_rank import (
    Pair,
    add_low_rank,
    add_up,
    masked_low_rank,
    project_down,
)
from tlora_cli.formulas.products import Products, delta_form
from tlora_cli.injection.layer_groups import LayerGroup

BATCH, PLACES, IN, OUT, RANK = 3, 5, 12, 10, 4
SIZE = 8
"""Rank of the adapters on whole models."""
ULP = {torch.float32: 2**-23, torch.bfloat16: 2**-8, torch.float16: 2**-11}


class Operations(TorchDispatchMode):
    """Counts what is dispatched, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 100 * len(shape) + shape[-1])
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def masks(rows: int | None) -> Tensor | None:
    if rows is None:
        return None
    return (torch.arange(RANK) < torch.arange(1, rows + 1)[:, None]).double().repeat(1, 2)


def case(dimensions: int) -> dict[str, Tensor]:
    shape = {2: (BATCH,), 3: (BATCH, PLACES), 4: (BATCH, PLACES, 2)}[dimensions]
    return {
        "x": draw(*shape, IN),
        "weight": draw(OUT, IN, seed=1),
        "bias": draw(OUT, seed=2),
        "down": draw(RANK, IN, seed=3),
        "up": draw(OUT, RANK, seed=4),
        "down0": draw(RANK, IN, seed=5),
        "up0": draw(OUT, RANK, seed=6),
    }


def pair(t: dict[str, Tensor]) -> Pair:
    """Return the case's factors in delta form, with gradients to `down` and `up`."""
    down, up = delta_form(Products(t["down"], t["up"], t["down0"], t["up0"]))
    first = down[:RANK].detach() + t["down"] - t["down"].detach()
    columns = up[:, :RANK].detach() + t["up"] - t["up"].detach()
    return Pair(down.detach(), [up.detach()], first[None], [columns])


def formula(x: Tensor, mask: Tensor | None, bias: Tensor | None, t: dict[str, Tensor]) -> Tensor:
    down, up = delta_form(Products(t["down"], t["up"], t["down0"], t["up0"]))
    return F.linear(x, t["weight"], bias) + masked_low_rank(x, down, up, mask)


def whole(x: Tensor, mask: Tensor | None, bias: Tensor | None, t: dict[str, Tensor]) -> Tensor:
    return add_low_rank(F.linear(x, t["weight"], bias), x, pair(t), mask)


def halves(x: Tensor, mask: Tensor | None, bias: Tensor | None, t: dict[str, Tensor]) -> Tensor:
    """Two layers through the two halves: the formula's, and one with other factors."""
    own = pair(t)
    other = pair({**t, "down": torch.ones_like(t["down"]), "up": torch.zeros_like(t["up"])})
    both = Pair(
        torch.cat([other.down, own.down]),
        [*other.ups, *own.ups],
        torch.cat([other.trained_down, own.trained_down]),
        [*other.trained_ups, *own.trained_ups],
    )
    _, hidden = project_down(x, both, mask)
    return add_up(F.linear(x, t["weight"], bias), hidden, both, 1)


Run = Callable[[Tensor, Tensor | None, Tensor | None, dict[str, Tensor]], Tensor]


def results(
    run: Run, tensors: dict[str, Tensor], mask: Tensor | None, bias: bool, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Return the output and all gradients of a run in a number format."""
    t = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    for name in ("x", "down", "up"):
        t[name] = t[name].clone().requires_grad_()
    x = t["x"] * 1  # not a leaf, as in a model
    output = run(x, None if mask is None else mask.to(dtype), t["bias"] if bias else None, t)
    output.backward(torch.cos(torch.arange(output.numel())).view(output.shape).to(dtype))
    return {"output": output.detach()} | {n: t[n].grad for n in ("x", "down", "up")}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("run", [whole, halves])
@pytest.mark.parametrize("rows", [None, 1, BATCH])
@pytest.mark.parametrize("dimensions", [2, 3, 4])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_the_formula(
    run: Run, rows: int | None, dimensions: int, bias: bool, dtype: torch.dtype
) -> None:
    tensors, mask = case(dimensions), masks(rows)
    exact = results(formula, tensors, mask, bias, torch.float64)
    got = results(run, tensors, mask, bias, dtype)
    plain = results(formula, tensors, mask, bias, dtype)
    for name, want in exact.items():
        assert got[name].dtype == dtype
        if dtype == torch.float64:
            torch.testing.assert_close(got[name], want, rtol=1e-12, atol=1e-12)
            continue
        error = (got[name].double() - want).norm() / want.norm()
        own = (plain[name].double() - want).norm() / want.norm()
        assert error < 1.5 * own + ULP[dtype] / 4, name


@pytest.mark.parametrize("rows", [None, BATCH])
@pytest.mark.parametrize("run", [whole, halves])
def test_gradcheck(run: Run, rows: int | None) -> None:
    tensors = case(3)

    def function(x: Tensor, down: Tensor, up: Tensor) -> Tensor:
        return run(x * 1, masks(rows), tensors["bias"], {**tensors, "down": down, "up": up})

    leaves = [tensors[name].requires_grad_() for name in ("x", "down", "up")]
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("run", [whole, halves])
def test_a_mask_must_fit_the_batch(run: Run) -> None:
    with pytest.raises(ValueError, match="made for 2 timesteps"):
        run(case(3)["x"], masks(2), None, case(3))


@pytest.mark.parametrize("bias", [False, True])
def test_the_update_is_accumulated_into_the_output(bias: bool) -> None:
    t = case(3)
    t["up"].requires_grad_()
    output = F.linear(t["x"], t["weight"], t["bias"] if bias else None)
    place = output.data_ptr()
    got = add_low_rank(output, t["x"], pair(t), None)
    assert got.data_ptr() == place
    with Operations() as operations:
        got.sum().backward()
    assert not operations.counts.keys() & {"clone", "copy_", "as_strided", "new_empty_strided"}


def test_an_output_of_another_layout_is_not_written_into() -> None:
    t = case(3)
    t["up"].requires_grad_()
    longer = draw(BATCH, PLACES + 1, OUT).requires_grad_() * 1
    before = longer.detach().clone()
    for output in (longer[:, 1:], longer.transpose(1, 2)[:, :OUT, :PLACES].transpose(1, 2)):
        want = output + masked_low_rank(t["x"], pair(t).down, pair(t).ups[0], None)
        torch.testing.assert_close(add_low_rank(output, t["x"], pair(t), None), want)
    assert torch.equal(longer, before)


@pytest.mark.parametrize(
    ("needed", "products"),
    [(("x", "down", "up"), 4), (("down", "up"), 3), (("up",), 1), (("x",), 2)],
)
def test_no_gradient_is_computed_that_nothing_needs(needed: tuple[str, ...], products: int) -> None:
    t = case(3)
    for name in needed:
        t[name].requires_grad_()
    got = add_low_rank(draw(BATCH, PLACES, OUT), t["x"], pair(t), None)
    with Operations() as operations:
        got.sum().backward()
    assert operations.counts["mm"] == products
    assert all((t[name].grad is not None) == (name in needed) for name in t)


# --- on whole models ------------------------------------------------------------------------------


@contextmanager
def plain(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, every layer runs by the plain formula, each for itself."""

    def add(group: LayerGroup, index: int, x: Tensor, output: Tensor) -> Tensor:
        layer = group.layers[index]
        down, up = (factor.to(output.dtype) for factor in layer.factors())
        mask = adapter.call.mask(layer.copies, output.dtype)
        return output + masked_low_rank(x.to(output.dtype), down, up, mask)

    with monkeypatch.context() as patch:
        patch.setattr(LayerGroup, "add", add)
        yield


def pass_through(
    model: nn.Module, adapter: Adapter, t: Any, family: str, inputs: dict[str, Any]
) -> list[Tensor]:
    """Return the answer and the gradients of a loss."""
    answer = call(model, inputs, t, family)
    return [answer.detach(), *torch.autograd.grad((answer**2).mean(), list(adapter.parameters()))]


METHODS = ["lora", "tlora", "pissa", "adalora"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("t", [[600.0], [950.0, 100.0]], ids=["one", "each"])
def test_models_agree_with_the_formula(
    family: str, method: str, t: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    make, make_inputs, _ = FAMILIES[family]
    model = make()
    adapter = stir(attach(model, method, SIZE))
    arguments = model, adapter, torch.tensor(t), family, make_inputs(len(t))
    got = pass_through(*arguments)
    with plain(adapter, monkeypatch):
        want = pass_through(*arguments)
    assert all(close(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(checkpointing: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_unet()
    adapter = stir(attach(model, "tlora", SIZE), 0.05)
    arguments = model, adapter, torch.tensor([900.0, 50.0]), "sdxl", unet_inputs(2)
    exact = pass_through(*arguments)
    if checkpointing:
        adapter.enable_gradient_checkpointing()
    with torch.autocast("cpu", dtype):
        got = pass_through(*arguments)
        with plain(adapter, monkeypatch):
            want = pass_through(*arguments)
    errors = [
        sum(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs)
        for pairs in (zip(got, exact, strict=True), zip(want, exact, strict=True))
    ]
    assert errors[0] < 1.1 * errors[1]
    assert all(a.dtype == b.dtype for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    exact_model = make_unet()
    exact_adapter = stir(attach(exact_model, "tlora", SIZE), 0.05)
    t, inputs = torch.tensor([300.0]), unet_inputs(1)
    exact = pass_through(exact_model, exact_adapter, t, "sdxl", inputs)
    model = make_unet().to(dtype)
    adapter = attach(model, "tlora", SIZE)
    adapter.load_state_dict(exact_adapter.state_dict())
    half = {
        key: {k: v.to(dtype) for k, v in value.items()}
        if isinstance(value, dict)
        else value.to(dtype)
        for key, value in inputs.items()
    }
    got = pass_through(model, adapter, t, "sdxl", half)
    with plain(adapter, monkeypatch):
        want = pass_through(model, adapter, t, "sdxl", half)
    assert got[0].dtype == dtype
    assert all(gradient.dtype == torch.float32 for gradient in got[1:])
    errors = [
        sum(float((a.double() - b.double()).norm() / b.double().norm()) for a, b in pairs)
        for pairs in (zip(got, exact, strict=True), zip(want, exact, strict=True))
    ]
    assert errors[0] < 1.25 * errors[1]  # both are noise of rounding, of other orders


class Compiler:
    """A backend that counts what it compiles; compiled code computes as eager code does."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return aot_eager(graph, inputs)


def compare_compiled(
    family: str, compile: Callable[[Any, Any], object], times: list[list[float]]
) -> int:
    """Compare compiled calls and gradients with eager ones; return how often it was compiled."""
    make, make_inputs, _ = FAMILIES[family]
    model, compiler = make(), Compiler()
    adapter = stir(attach(model, "tlora", SIZE))
    arguments = [
        (model, adapter, torch.tensor(t), family, make_inputs(len(t), seed=n))
        for n, t in enumerate(times)
    ]
    want = [pass_through(*one) for one in arguments]
    torch._dynamo.reset()
    compile(model, compiler)
    got = [pass_through(*one) for one in arguments]
    for ours, theirs in zip(got, want, strict=True):
        assert all(close(a, b) for a, b in zip(ours, theirs, strict=True))
    return compiler.graphs


@pytest.mark.full
def test_compiled_as_a_whole() -> None:
    """Once; the second call, at other timesteps, runs what was compiled for the first."""
    count = compare_compiled(
        "flux",
        lambda model, compiler: model.compile(backend=compiler),
        [[600.0, 20.0], [100.0, 990.0]],
    )
    assert count == 1


def test_compiled_by_region() -> None:
    """The blocks share a compilation, though each has layers and factors of its own.

    The first block is one apart: its input has no gradient.
    """
    count = compare_compiled(
        "sdxl",
        lambda model, compiler: model.compile_repeated_blocks(backend=compiler),
        [[600.0], [100.0]],
    )
    assert count == 2


def test_layers_of_one_input_share_its_product() -> None:
    model = make_unet()
    attach(model, "lora", SIZE)
    with torch.no_grad(), Operations() as operations:
        call(model, unet_inputs(1), 500, "sdxl")
    blocks = sum(name.endswith("attn1") for name, _ in model.named_modules())
    bare = make_unet()
    with torch.no_grad(), Operations() as without:
        call(bare, unet_inputs(1), 500, "sdxl")
    more = operations.counts - without.counts
    assert more["mm"] == 5 * blocks, "of queries, keys and values 1, of text 1, and of 3 others"
    assert more["addmm_"] == 8 * blocks


class Apart:
    """Attention whose queries read another tensor than keys and values."""

    def __init__(self, in_place: bool) -> None:
        self.in_place = in_place

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        query = attn.to_q(hidden_states)
        other = hidden_states.mul_(1.5) if self.in_place else hidden_states * 1.5
        return (query + attn.to_k(other) + attn.to_v(other)).tanh()


@pytest.mark.parametrize("changed", [False, True], ids=["another", "changed in place"])
def test_layers_that_do_not_share_after_all(changed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_unet()
    adapter = stir(attach(model, "tlora", SIZE))
    for name, module in model.named_modules():
        if name.endswith("attn1"):
            module.set_processor(Apart(changed))

    def answer() -> Tensor:
        with torch.no_grad():
            return call(model, unet_inputs(1), 500, "sdxl")

    got = [answer(), answer()]
    with plain(adapter, monkeypatch):
        want = answer()
    assert all(close(one, want) for one in got)


def test_a_model_can_be_copied_after_a_call() -> None:
    model, inputs = make_unet(), unet_inputs(1)
    adapter = stir(attach(model, "tlora", SIZE))
    want = pass_through(model, adapter, torch.tensor([500.0]), "sdxl", inputs)[0]
    copied = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(call(copied, inputs, 500, "sdxl"), want)


def test_two_adapters_on_one_model_add_up() -> None:
    model = make_unet()
    first = stir(attach(model, "lora", SIZE))
    alone = call(model, unet_inputs(1), 500, "sdxl").detach()
    second = attach(model, "tlora", SIZE)
    assert torch.equal(call(model, unet_inputs(1), 500, "sdxl"), alone)
    stir(second)
    answer = call(model, unet_inputs(1), 500, "sdxl")
    gradients = torch.autograd.grad((answer**2).mean(), [*first.parameters(), *second.parameters()])
    assert not torch.equal(answer, alone)
    second.remove()
    assert torch.equal(call(model, unet_inputs(1), 500, "sdxl"), alone)
    assert all(gradient.isfinite().all() for gradient in gradients)
