"""Section of the recipe: the adapter, with the schedule of its rank."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Strict, field_validator

from tlora_cli.families.reach import PUBLISHED
from tlora_cli.formulas.schedules import SCHEDULES
from tlora_cli.methods import DEFAULT, METHODS
from tlora_cli.methods.tlora import INIT_STD
from tlora_cli.recipe.names_in_words import (
    methods_beyond_attention,
    methods_help,
    reaches_help,
    schedules_help,
    schedules_with_points,
)
from tlora_cli.recipe.strict_section import (
    InitName,
    MethodName,
    Problem,
    ScheduleName,
    Section,
    check_expression,
)

if TYPE_CHECKING:
    InitStd = str
else:
    InitStd = Literal[tuple(INIT_STD)]


class ScheduleConfig(Section):
    """The number of ranks that are active at a timestep (paper, eq. 4)."""

    kind: ScheduleName = Field("linear", description=schedules_help())
    alpha: float = Field(
        1.0,
        gt=0,
        description="Exponent of linear and its controls: above 1, fewer ranks in between.",
    )
    points: list[Annotated[tuple[float, int], Strict(False)]] | None = Field(
        None,
        description=f"For {schedules_with_points()}: [timestep, rank] pairs in rising timestep; "
        "timesteps on the 0..1000 scale.",
    )
    axis: Literal["timestep", "logsnr"] = Field(
        "timestep",
        description="timestep: the rank goes by the base's timestep. logsnr: by its noise level, "
        "so that a base with another noise schedule has the same rank at the same noise.",
    )

    def problems(self) -> Iterator[Problem]:
        """Yield points that are missing, out of place or out of order."""
        if SCHEDULES[self.kind].takes_points:
            if not self.points:
                yield Problem(
                    f"schedule kind {self.kind} needs points, e.g. [[0, 64], [800, 32]]",
                    ("points", "kind"),
                )
            times = [time for time, _ in self.points or []]
            if any(b <= a for a, b in pairwise(times)):
                yield Problem("the timesteps of points must rise", ("points",))
            if not all(0 <= time <= 1000 for time in times):
                yield Problem("the timesteps of points must lie in 0..1000", ("points",))
        elif self.points is not None:
            yield Problem(
                f"points belong to {schedules_with_points()}, not to {self.kind}",
                ("points", "kind"),
            )


_DEFAULT_RANK, _DEFAULT_BLOCKS = 64, 32


def _default_min_rank(data: dict[str, Any]) -> int:
    """Half the rank, as in the paper; the whole rank for methods without a schedule."""
    rank: int = data["rank"]
    return max(1, rank // 2) if METHODS[data["method"]].masked else rank


class AdapterConfig(Section):
    """The adapter: a parametrization and a rank schedule."""

    method: MethodName = Field(DEFAULT, description=methods_help())
    rank: int = Field(_DEFAULT_RANK, ge=1, description="Full rank R, of the low-rank methods.")
    min_rank: int = Field(
        default_factory=_default_min_rank,
        ge=1,
        description="Rank at the noisiest timestep. Default: half the rank (the paper).",
    )
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    init: InitName = Field(
        "random_last",
        description="Start of the ortho methods: singular triplets of a random matrix or of the "
        "layer's weights; the first, middle or last ones.",
    )
    init_std: InitStd = Field(
        "1/r",
        description="Standard deviation of the random start: 1/r as in the published code, or "
        "1/sqrt(r), the paper's N(0, 1/r) read as a variance.",
    )
    blocks: int = Field(
        _DEFAULT_BLOCKS,
        ge=1,
        description="Number of diagonal blocks of OFT and GSOFT; more is smaller.",
    )
    targets: str | None = Field(
        None,
        description=f"The layers to adapt. {reaches_help()} Or a regular expression for the full "
        f"names of linear layers. Default: {PUBLISHED}; all modules for "
        f"{methods_beyond_attention()}.",
    )

    @field_validator("targets")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        return value if value is None else check_expression(value)

    def problems(self) -> Iterator[Problem]:
        """Yield ranks out of bounds, and settings that the method would ignore."""
        method = METHODS[self.method]
        if not method.low_rank:
            yield from self._rank_settings()
            return
        if self.blocks != _DEFAULT_BLOCKS:
            yield Problem(f"{self.method} has no blocks; drop it", ("blocks", "method"))
        if self.min_rank > self.rank:
            yield Problem(f"{self.min_rank} is above rank {self.rank}", _RANK_KEYS)
        elif not method.masked and self.min_rank != self.rank:
            other = f" or take {method.masked_form}" if method.masked_form else ""
            yield Problem(
                f"{self.method} always uses its full rank; drop min_rank{other}",
                (*_RANK_KEYS, "method"),
            )
        if not method.masked and self.schedule != ScheduleConfig():
            yield Problem(
                f"{self.method} has no rank schedule; drop schedule", ("schedule", "method")
            )
        for _, rank in self.schedule.points or []:
            if not 0 <= rank <= self.rank:
                yield Problem(
                    f"a point of the schedule has rank {rank}, outside 0..{self.rank}",
                    ("schedule.points", "rank"),
                )

    def _rank_settings(self) -> Iterator[Problem]:
        """Yield settings of ranks that a method without ranks would ignore."""
        # By value, not by what was written: the recipe a run keeps has every key.
        given = {
            "rank": self.rank != _DEFAULT_RANK,
            "min_rank": self.min_rank != self.rank,
            "schedule": self.schedule != ScheduleConfig(),
        }
        for key, set_by_user in given.items():
            if set_by_user:
                yield Problem(
                    f"{self.method} has no ranks, so no {key}; drop it (--set adapter.{key}=null), "
                    f"or use {DEFAULT} or another low-rank method",
                    (key, "method"),
                )
        if not METHODS[self.method].divides and self.blocks != _DEFAULT_BLOCKS:
            yield Problem(f"{self.method} has no blocks; drop it", ("blocks", "method"))


_RANK_KEYS = ("min_rank", "rank")
