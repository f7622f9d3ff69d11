"""All claims, the paper's and then ours, written down before any of their grids was run."""

from __future__ import annotations

from collections.abc import Callable

from laboratory.photo_claims import PHOTO_CLAIMS
from laboratory.results import Pick
from laboratory.spectra import RANK_OF_B, RANK_OF_UPDATE, START_SIZE
from laboratory.verdicts import LIKENESS, Claim, Contrast, Correlation
from tlora_cli.methods import METHODS


def _noise(variant: str) -> Pick:
    return Pick("lora", variant=variant)


def _at(method: str, rank: int) -> Pick:
    return Pick(method, rank)


def _equal(method: str) -> Pick:
    return Pick(method, variant="equal")


def _paper(method: str) -> Pick:
    return Pick(method, variant=f"paper{METHODS[method].steps['sdxl']}")


def _after(method: str, steps: int) -> Pick:
    return Pick(method, variant=f"s{steps}")


RANKS = (4, 8, 16, 32)
FLUX_RANKS = (4, 16)
STEPS = (100, 200, 400, 800)
CURVE = {f"T-LoRA, steps {steps}": _after("tlora", steps) for steps in STEPS}
"""T-LoRA over its steps: what others are compared with at the same likeness."""
LINEAR = Pick("tlora", 16, "linear")
CONTROLS = {
    "reversed": Pick("tlora", 16, "reversed"),
    "random": Pick("tlora", 16, "random"),
    "Ortho-LoRA, rank 12": Pick("ortho_lora", 12),
    "LoRA, rank 12": Pick("lora", 12),
}
OTHERS = (
    "lora", "vanilla_tlora", "ortho_lora", "pissa", "adalora", "oft", "oft_v2", "gsoft",
    "gsoft_double", "svdiff", "dreambooth", "dreambooth_full", "custom_diffusion",
    "textual_inversion",
)  # fmt: skip
ALL = ("tlora", *OTHERS)


def _against_all(name: str, title: str, says: str, arm: Callable[[str], Pick]) -> Claim:
    """Return the claim about all methods, after steps that `arm` chooses."""
    return Claim(
        name,
        "methods",
        title,
        "table 2",
        says,
        {method: arm(method) for method in ALL},
        [Contrast(method, "TS*", arm("tlora"), arm(method), 1) for method in OTHERS],
        costs={method: arm(method) for method in ALL},
        noticed=_schedule_alone(arm),
    )


def _schedule_alone(arm: Callable[[str], Pick]) -> list[Contrast]:
    """Return what the schedule alone does, with either start: same rank, same steps."""
    return [
        Contrast(f"{method} against {other}", metric, arm(method), arm(other), expected)
        for method, other in (("vanilla_tlora", "lora"), ("tlora", "ortho_lora"))
        for metric, expected in (("TS*", 1), (LIKENESS, 1), ("leak", -1))
    ]


CLAIMS = (
    Claim(
        "timesteps",
        "timesteps",
        "Noisy timesteps overfit",
        "figure 2",
        "LoRA trained on t in [800, 1000) alone copies background and position and stops following "
        "prompts; trained on [0, 500) it follows prompts and learns the details.",
        {"all": _noise("all"), "[800, 1000)": _noise("noisy"), "[500, 800)": _noise("middle"),
         "[0, 500)": _noise("clean")},
        (
            Contrast("noisy leaks more than clean", "leak", _noise("noisy"), _noise("clean"), 1),
            Contrast("noisy follows less", "TS*", _noise("noisy"), _noise("clean"), -1),
        ),
    ),
    Claim(
        "ranks",
        "ranks",
        "T-LoRA follows prompts better at every rank",
        "table 1",
        "At ranks 4 to 64, T-LoRA's text similarity is above LoRA's.",
        {f"{name}/{rank}": _at(method, rank)
         for method, name in (("lora", "LoRA"), ("tlora", "T-LoRA")) for rank in RANKS},
        [Contrast(f"rank {rank}", "TS*", _at("tlora", rank), _at("lora", rank), 1)
         for rank in RANKS],
        across="rank",
    ),
    _against_all(
        "methods",
        "T-LoRA follows prompts better than the other methods",
        "Of all methods T-LoRA has the best text similarity at about the same image similarity.",
        _equal,
    ),
    _against_all(
        "methods-paper",
        "T-LoRA follows prompts better after the paper's steps, too",
        "The same, each method trained for as many steps as in the paper, from 500 of LoRA and 800 "
        "of T-LoRA to 2000 of DreamBooth.",
        _paper,
    ),
    Claim(
        "starts",
        "starts",
        "The last singular vectors are the best start",
        "figure 5",
        "Of six orthogonal starts, the last components of a random matrix follow prompts best, the "
        "principal ones of the weights worst.",
        {name: Pick("tlora", variant=name.replace(" ", "-"))
         for name in ("random last", "random middle", "random principal", "weights last",
                      "weights middle", "weights principal")},
        [Contrast(f"random last against {name.replace('-', ' ')}", "TS*",
                  Pick("tlora", variant="random-last"), Pick("tlora", variant=name), 1)
         for name in ("random-principal", "weights-principal")]
        + [Correlation("larger starts follow less", START_SIZE, "TS*", -1)],
        spectra=True,
    ),
    Claim(
        "min_rank",
        "min_rank",
        "Half the rank at the noisiest timestep",
        "figure 6",
        "r_min of half the rank keeps the likeness of the whole rank and follows prompts better.",
        {"whole rank": Pick("tlora", variant="whole"), "half": Pick("tlora", variant="half"),
         "quarter": Pick("tlora", variant="quarter")},
        (
            Contrast("half follows better than whole", "TS*", Pick("tlora", variant="half"),
                     Pick("tlora", variant="whole"), 1),
            Contrast("half is more alike than a quarter", LIKENESS, Pick("tlora", variant="half"),
                     Pick("tlora", variant="quarter"), 1),
        ),
    ),
    Claim(
        "spectra",
        "controls",
        "LoRA uses few of its ranks, Ortho-LoRA most",
        "figure 4",
        "The singular values of a trained LoRA's B fall fast, so that few ranks hold 95% of their "
        "sum; those of Ortho-LoRA don't. B of Ortho-LoRA starts with equal values, so the update "
        "itself decides as well.",
        {"LoRA": Pick("lora", 16), "Ortho-LoRA": Pick("ortho_lora", 16), "T-LoRA": LINEAR},
        (
            Contrast("B", RANK_OF_B, Pick("ortho_lora", 16), Pick("lora", 16), 1),
            Contrast("the update", RANK_OF_UPDATE, Pick("ortho_lora", 16), Pick("lora", 16), 1),
        ),
        metrics={RANK_OF_B: "effective rank of B (of 16)",
                 RANK_OF_UPDATE: "effective rank of the update"},
        spectra=True,
        curve=None,
    ),
    Claim(
        "images",
        "images",
        "One picture with T-LoRA is worth three with LoRA",
        "table 4",
        "T-LoRA trained on one picture follows prompts better than LoRA trained on three.",
        {f"{name}, {count}": Pick(method, variant=count) for method, name in
         (("lora", "LoRA"), ("tlora", "T-LoRA")) for count in ("one", "three")},
        (Contrast("T-LoRA on one against LoRA on three", "TS*", Pick("tlora", variant="one"),
                  Pick("lora", variant="three"), 1),),
    ),
    Claim(
        "steps",
        "steps",
        "T-LoRA leaks less at any step",
        "figures 10-12",
        "Over the steps of a training, T-LoRA copies background and position less than LoRA.",
        {f"{name}/{steps}": _after(method, steps)
         for method, name in (("lora", "LoRA"), ("tlora", "T-LoRA")) for steps in STEPS},
        [Contrast(f"{steps} steps", "leak", _after("tlora", steps), _after("lora", steps), -1)
         for steps in STEPS],
        across="steps",
    ),
    Claim(
        "controls",
        "controls",
        "It is the timestep",
        "not in the paper",
        "Fewer ranks on noisy timesteps follow prompts better than the same mean rank reversed, in "
        "random order, or at all timesteps.",
        {"T-LoRA": LINEAR, **CONTROLS, "Ortho-LoRA, rank 16": Pick("ortho_lora", 16),
         "LoRA, rank 16": Pick("lora", 16)},
        [Contrast(name, "TS*", LINEAR, arm, 1) for name, arm in CONTROLS.items()],
    ),
    Claim(
        "flux",
        "flux",
        "On FLUX, too, T-LoRA follows prompts better",
        "table 5",
        "At ranks 4 and 16 on toy-flux, T-LoRA (least rank 1) follows prompts better than LoRA.",
        {f"{name}/{rank}": _at(method, rank)
         for method, name in (("lora", "LoRA"), ("tlora", "T-LoRA")) for rank in FLUX_RANKS},
        [Contrast(f"rank {rank}", "TS*", _at("tlora", rank), _at("lora", rank), 1)
         for rank in FLUX_RANKS],
        across="rank",
        curve="flux_steps",
    ),
    Claim(
        "flux-spectra",
        "flux",
        "T-LoRA uses more of its ranks than LoRA on FLUX",
        "figure 9",
        "The singular values of LoRA's B fall faster than those of T-LoRA's on FLUX, too.",
        {"LoRA": _at("lora", 16), "T-LoRA": _at("tlora", 16)},
        (
            Contrast("B", RANK_OF_B, _at("tlora", 16), _at("lora", 16), 1),
            Contrast("the update", RANK_OF_UPDATE, _at("tlora", 16), _at("lora", 16), 1),
        ),
        metrics={RANK_OF_B: "effective rank of B (of 16)",
                 RANK_OF_UPDATE: "effective rank of the update"},
        spectra=True,
        curve=None,
    ),
    *PHOTO_CLAIMS,
)  # fmt: skip
"""All claims that the built-in bases can measure, in the order of the page."""

GRIDS = sorted({grid for claim in CLAIMS for grid in (claim.grid, claim.curve) if grid})
"""All grids that a claim needs."""
