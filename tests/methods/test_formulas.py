"""The compared methods against their formulas, written out densely in float64, and PEFT's code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from layers import changed_layer
from peft.tuners.adalora.layer import RankAllocator
from peft.tuners.oft.layer import OFTRotationModule
from torch import Tensor, nn

from tlora_cli.methods.adalora import ORTHOGONALITY, Budget, allocate, orthogonality
from tlora_cli.methods.gsoft import rotate

OUT, IN, BLOCKS = 24, 36, 3


def weight() -> Tensor:
    return torch.randn(OUT, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def made(method: str, **settings: int) -> Any:
    """Return a method's change of a layer (OUT, IN)."""
    layer = nn.Linear(IN, OUT, device="meta")
    return changed_layer(method, layer, **{"blocks": BLOCKS, **settings})


def shaken(module: Any, size: float = 0.3) -> Any:
    """Return the module in float64 with every trained number moved."""
    generator = torch.Generator().manual_seed(1)
    module = module.double()
    with torch.no_grad():
        for tensor in module.parameters():
            tensor += size * torch.randn(tensor.shape, dtype=torch.float64, generator=generator)
    return module


def skew(entries: Tensor, size: int) -> Tensor:
    matrix = torch.zeros(size, size, dtype=torch.float64)
    place = iter(entries)
    for row in range(size):
        for column in range(row + 1, size):
            matrix[row, column] = next(place)
    return matrix - matrix.T


def rotation(s: Tensor) -> Tensor:
    """(I + S)(I - S)^-1, by an explicit inverse."""
    one = torch.eye(len(s), dtype=torch.float64)
    return (one + s) @ torch.inverse(one - s)


def permutation(features: int, groups: int) -> Tensor:
    """Row j of P @ x is row i of x, where i counts within a group and g over groups."""
    matrix = torch.zeros(features, features, dtype=torch.float64)
    inside = features // groups
    for g in range(groups):
        for i in range(inside):
            matrix[g * inside + i, i * groups + g] = 1.0
    return matrix


def dense_gs(turn: Any, features: int) -> Tensor:
    left, right = (
        torch.block_diag(*(rotation((block - block.T) / 2) for block in blocks.detach()))
        for blocks in (turn.L, turn.R)
    )
    p = permutation(features, BLOCKS)
    return p.T @ left @ p @ right


def changed(module: Any) -> Tensor:
    with torch.no_grad():
        result: Tensor = module.weights({"weight": weight()})["weight"]
    return result


def close(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=0, atol=1e-10)


def singular_values(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrix)


# --- OFT ------------------------------------------------------------------------------------------


def test_oft_is_a_block_rotation_of_the_outputs() -> None:
    module = shaken(made("oft"))
    size = OUT // BLOCKS
    dense = torch.block_diag(*(rotation(skew(e, size)) for e in module.entries.detach()))
    close(changed(module), dense @ weight())
    close(singular_values(changed(module)), singular_values(weight()))


def test_oft_v2_is_what_peft_computes() -> None:
    module = shaken(made("oft_v2"), 0.05)
    size = IN // BLOCKS
    theirs = OFTRotationModule(BLOCKS, size * (size - 1) // 2, size, IN).double()
    with torch.no_grad():
        theirs.weight.copy_(module.entries)
        x = torch.randn(5, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        close(x @ changed(module).T, theirs(x) @ weight().T)


def test_oft_v2_is_a_rotation_only_nearly() -> None:
    drift = [
        (singular_values(changed(shaken(made("oft_v2"), s))) - singular_values(weight())).abs()
        for s in (0.01, 0.1)
    ]
    assert 0 < drift[0].max() < 1e-3 < drift[1].max()


# --- GSOFT ----------------------------------------------------------------------------------------


def test_gsoft_single() -> None:
    module = shaken(made("gsoft"))
    q = dense_gs(module.V, IN)
    close(q @ q.T, torch.eye(IN, dtype=torch.float64))
    close(changed(module), torch.diag(module.scale.detach()) @ weight() @ q)


def test_gsoft_double() -> None:
    module = shaken(made("gsoft_double"))
    u, v = dense_gs(module.U, OUT), dense_gs(module.V, IN)
    close(changed(module), torch.diag(module.scale.detach()) @ u @ weight() @ v)


@pytest.mark.parametrize("method", ["gsoft", "gsoft_double"])
def test_gsoft_without_scale_keeps_singular_values(method: str) -> None:
    module = shaken(made(method))
    with torch.no_grad():
        module.scale.fill_(1.0)
    close(singular_values(changed(module)), singular_values(weight()))


def test_gsoft_mixes_what_oft_does_not() -> None:
    features = 16
    turn = shaken(changed_layer("gsoft", nn.Linear(features, features), blocks=4)).V
    with torch.no_grad():
        one = torch.eye(features, dtype=torch.float64)
        assert (rotate(turn.L, turn.R, one) != 0).all()


# --- SVDiff ---------------------------------------------------------------------------------------


def test_svdiff_moves_singular_values_only() -> None:
    module = shaken(changed_layer("svdiff", SimpleNamespace(weight=weight())), 2.0)
    u, s, vh = torch.linalg.svd(weight(), full_matrices=False)
    moved = torch.relu(s + module.shift.detach())
    assert (moved == 0).any(), "the case must reach below zero"
    # The factors are kept in fp32; with those of float64 in their place, the formula is exact.
    module.U, module.S, module.Vh = u, s, vh
    close(changed(module), u @ torch.diag(moved) @ vh)


def test_svdiff_of_a_convolution_is_that_of_its_matrix() -> None:
    kernel = weight().view(OUT, 4, 3, 3)
    module = shaken(changed_layer("svdiff", SimpleNamespace(weight=kernel)))
    with torch.no_grad():
        out = module.weights({"weight": kernel})["weight"]
    assert out.shape == kernel.shape
    torch.testing.assert_close(out.flatten(1), changed(module), rtol=0, atol=1e-12)


# --- PiSSA ----------------------------------------------------------------------------------------


def test_pissa_starts_from_the_principal_part() -> None:
    layer = nn.Linear(IN, OUT)
    module = changed_layer("pissa", layer, rank=4)
    u, s, vh = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    best = (u[:, :4] * s[:4]) @ vh[:4]
    torch.testing.assert_close((module.B @ module.A).double(), best, rtol=0, atol=1e-5)
    torch.testing.assert_close(module.A @ module.A.T, module.B.T @ module.B, rtol=0, atol=1e-5)
    shaken(module)
    down, up = module.factors()
    close(up @ down, module.B @ module.A - module.B0 @ module.A0)


# --- AdaLoRA --------------------------------------------------------------------------------------


class Theirs(nn.Module):
    """Two layers under the names PEFT's allocator looks for."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        for number, layer in enumerate(layers):
            part = nn.Module()
            for mine, name in (("A", "lora_A"), ("E", "lora_E"), ("B", "lora_B")):
                tensor = getattr(layer, mine).detach().clone()
                one = nn.ParameterDict({"default": tensor[:, None] if mine == "E" else tensor})
                part.add_module(name, one)
            self.add_module(f"layer{number}", part)


def test_adalora_prunes_what_peft_prunes() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [changed_layer("adalora", nn.Linear(IN, OUT), generator, rank=6) for _ in range(2)]
    theirs = Theirs(layers)
    steps, tinit, tfinal = 20, 2, 6
    config = SimpleNamespace(
        beta1=0.85, beta2=0.85, target_r=4, tinit=tinit, tfinal=tfinal, total_step=steps, deltaT=1
    )
    allocator = RankAllocator(theirs, config, "default")
    budget = Budget(12, steps)
    kept = []
    for step in range(1, steps + 1):
        for number, layer in enumerate(layers):
            other: Any = getattr(theirs, f"layer{number}")
            for mine, name in (("A", "lora_A"), ("E", "lora_E"), ("B", "lora_B")):
                own, copy = getattr(layer, mine), getattr(other, name)["default"]
                own.grad = torch.randn(own.shape, generator=generator)
                copy.grad = own.grad.view_as(copy).clone()
                with torch.no_grad():
                    own -= 0.1 * own.grad
                    copy -= 0.1 * copy.grad
        expected, pattern = allocator.update_and_allocate(theirs, step)
        kept.append(allocate(layers, step, steps))
        assert budget.at(step) == kept[-1]
        if tinit < step:
            assert kept[-1] == expected
        for number, layer in enumerate(layers):
            other = getattr(theirs, f"layer{number}")
            torch.testing.assert_close(layer.E, other.lora_E["default"][:, 0], rtol=1e-6, atol=1e-9)
        if tinit < step and pattern:
            assert sum(int((layer.E != 0).sum()) for layer in layers) == kept[-1]
    assert kept[0] == 12
    assert kept[-1] == 8, "two thirds stay"
    assert sorted(kept, reverse=True) == kept


def test_adalora_orthogonality_is_that_of_the_paper() -> None:
    layers = [shaken(made("adalora", rank=3)) for _ in range(2)]
    one = torch.eye(3, dtype=torch.float64)
    norms = [
        torch.linalg.matrix_norm(product - one)
        for layer in layers
        for product in (layer.A @ layer.A.T, layer.B.T @ layer.B)
    ]
    close(orthogonality(layers), ORTHOGONALITY * sum(norms) / 4)
    assert orthogonality(layers).requires_grad


# --- sizes ----------------------------------------------------------------------------------------

SIZES = {
    # method, settings: parameters of a 1280 x 1280 layer (method of the paper, table of sizes)
    ("lora", ("rank", 16)): 2560 * 16,
    ("pissa", ("rank", 16)): 2560 * 16,
    ("adalora", ("rank", 16)): 2561 * 16,
    ("tlora", ("rank", 16)): 2561 * 16,
    ("oft", ("blocks", 32)): 24_960,
    ("oft", ("blocks", 16)): 50_560,
    ("oft_v2", ("blocks", 32)): 24_960,
    ("gsoft", ("blocks", 64)): 51_200 + 1280,
    ("gsoft", ("blocks", 32)): 102_400 + 1280,
    ("gsoft_double", ("blocks", 64)): 102_400 + 1280,
    ("svdiff", ("rank", 64)): 1280,
    ("dreambooth", ("rank", 64)): 1_638_400,
    ("dreambooth_full", ("rank", 64)): 1_638_400 + 1280,
}


@pytest.mark.parametrize(("method", "setting"), SIZES)
def test_sizes_are_those_of_the_table(method: str, setting: tuple[str, int]) -> None:
    layer = nn.Linear(1280, 1280, device="meta")
    change = changed_layer(method, layer, **{setting[0]: setting[1]})
    assert sum(tensor.numel() for tensor in change.parameters()) == SIZES[method, setting]
