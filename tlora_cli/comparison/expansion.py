"""A grid -> its cells: one recipe each, checked before anything runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tlora_cli.comparison.cells import CELLS, Arm, Cell
from tlora_cli.comparison.changes import SET_BY_AXES
from tlora_cli.comparison.grid import Block, ConceptEntry, label_of
from tlora_cli.comparison.grid_io import GridFile
from tlora_cli.foundation.bundled import bundle_of_picture, concepts, picture_files
from tlora_cli.foundation.errors import UserError, known_names
from tlora_cli.foundation.files import expanded, writable
from tlora_cli.methods import METHODS
from tlora_cli.photos.finding import AUTO, MASKS_KEY
from tlora_cli.recipe.adapter_sections import ScheduleConfig
from tlora_cli.recipe.defaults import chosen_method
from tlora_cli.recipe.mistakes import RECIPE, KeyPath, Mistake
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.validation import validate

ValueT = TypeVar("ValueT")
PICTURE = re.compile(r"\{picture(\d+)\}")
"""A place for a picture of a concept's folder."""


@dataclass
class _Draft:
    """A cell before its recipe is checked: recipe values, and which grid entries they come from."""

    data: dict[str, Any]
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)

    def put(self, key: KeyPath, value: Any, origin: KeyPath) -> None:
        """Set a value; sections on the way are made."""
        section = self.data
        for part in key[:-1]:
            inside = section.get(str(part))
            if part == "base" and isinstance(inside, str):
                inside = {"model": inside}
            section[str(part)] = inside if isinstance(inside, dict) else {}
            section = section[str(part)]
        section[str(key[-1])] = value
        self.origins.pop(key, None)  # the last to set it comes last
        self.origins[key] = origin

    def drop(self, *keys: str) -> None:
        """Leave out settings of the adapter that the base recipe has for another method."""
        adapter = self.data.get("adapter")
        if isinstance(adapter, dict):
            self.data["adapter"] = {k: v for k, v in adapter.items() if k not in keys}

    def origin_of(self, paths: Sequence[KeyPath]) -> KeyPath | None:
        """Return the grid entry that set the first of the recipe's values that one has set."""
        for path in paths:
            for known, origin in reversed(self.origins.items()):
                shorter = min(len(known), len(path))
                if known[:shorter] == path[:shorter]:
                    return origin
        return None


@dataclass(frozen=True)
class _Choice:
    """One value of each axis, None where the recipe's own holds; with its place in the grid."""

    place: KeyPath
    variant: str | None
    method: str | None
    rank: int | None
    schedule: ScheduleConfig | None
    concept: ConceptEntry | None
    seed: int | None


class Expansion:
    """Makes the cells of a grid and gathers what is wrong with them."""

    def __init__(self, file: GridFile) -> None:
        self.file = file
        self.grid = file.grid
        self._wrong: dict[tuple[KeyPath, str, bool], list[str]] = {}
        self._tried = 0

    def cells(self) -> list[Cell]:
        """Return all cells whose recipe is right; a cell that comes up twice is one."""
        self._check_variants()
        found: dict[str, Cell] = {}
        for number, block in enumerate(self.grid.grid):
            single = isinstance(self.file.written.get("grid"), dict)
            place: KeyPath = ("grid",) if single else ("grid", number)
            if not self._axes_fit(block, place):
                continue
            for choice in self._choices(block, place):
                self._tried += 1
                cell = self._cell(choice)
                if cell is None:
                    continue
                before = found.setdefault(cell.name, cell)
                if before.recipe != cell.recipe:
                    text = f"two different cells would be called {cell.name}"
                    self._add(("grid",), text, cell.name)
        return list(found.values())

    def mistakes(self) -> list[Mistake]:
        """Return what is wrong, once for all cells it is wrong with."""
        told = self.file.changes.overruled(self.grid)
        for (path, text, in_base), names in self._wrong.items():
            if 0 < len(names) < self._tried and not in_base:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                text = f"{text} ({', '.join(names[:3])}{more})"
            make = self.file.mistake_in_base if in_base else self.file.mistake
            told.append(make(path, text))
        return told

    def _add(self, path: KeyPath, text: str, cell: str = "", in_base: bool = False) -> None:
        names = self._wrong.setdefault((path, text, in_base), [])
        if cell and cell not in names:
            names.append(cell)

    # --- axes -------------------------------------------------------------------------------------

    def _own_method(self) -> str:
        return chosen_method(str(self.file.base.get("family")), self.file.base.get("adapter"))

    def _axes_fit(self, block: Block, place: KeyPath) -> bool:
        """Note axes that a block's methods don't have; return whether there are none."""
        methods: list[str] = [*(block.method or ())] or [self._own_method()]
        before = len(self._wrong)
        if block.rank and not any(_ranked(method) for method in methods):
            self._add((*place, "rank"), f"{', '.join(methods)}: no ranks; drop it")
        unmasked = [method for method in methods if not _masked(method)]
        if block.schedule and unmasked:
            have = "has" if len(unmasked) == 1 else "have"
            self._add(
                (*place, "schedule"),
                f"{', '.join(unmasked)} {have} no rank schedule; let `grid` be a list, with a "
                "section without schedule for such methods",
            )
        for name in block.variant or []:
            if name not in self.grid.variants:
                text = f"there is no variant {name!r}; {known_names(name, self.grid.variants)}"
                self._add((*place, "variant"), text)
        return len(self._wrong) == before

    def _choices(self, block: Block, place: KeyPath) -> Iterator[_Choice]:
        for variant, method in itertools.product(
            block.variant or _values(list(self.grid.variants)), _values(block.method)
        ):
            ranked = _ranked(method or self._own_method())
            ranks = _values(block.rank) if ranked else [None]
            axes = (ranks, _values(block.schedule), _values(block.concept), _values(block.seed))
            for values in itertools.product(*axes):
                yield _Choice(place, variant, method, *values)

    def _check_variants(self) -> None:
        """Note variants that set what an axis sets, or whole sections."""
        axes = {axis for axis in SET_BY_AXES.values() for b in self.grid.grid if getattr(b, axis)}
        for name, values in self.grid.variants.items():
            for key, value in values.items():
                path: KeyPath = ("variants", name, key)
                for taken, axis in SET_BY_AXES.items():
                    if axis in axes and (key == taken or key.startswith(f"{taken}.")):
                        self._add(path, f"is set by the grid's axis {axis}")
                if key.partition(".")[0] == "output":
                    self._add(path, "is set for each cell; drop it")
                if isinstance(value, dict) and "." not in key and key != "base":
                    inner = next(iter(value), "key")
                    self._add(path, f"name the values one by one: {key}.{inner}")

    # --- one cell ---------------------------------------------------------------------------------

    def _draft(self, choice: _Choice) -> _Draft:
        """Return the recipe's values for a choice."""
        draft, place = _Draft(deepcopy(dict(self.file.base))), choice.place
        if choice.method is not None:
            sizes = {"rank", "min_rank", "schedule", "blocks"}
            draft.drop(*(sizes - METHODS[choice.method].reads))
            draft.put(("adapter", "method"), choice.method, (*place, "method"))
        if choice.rank is not None:
            draft.put(("adapter", "rank"), choice.rank, (*place, "rank"))
        if choice.schedule is not None:
            values = choice.schedule.model_dump(mode="json")
            draft.put(("adapter", "schedule"), values, (*place, "schedule"))
        if choice.concept is not None:
            self._put_concept(draft, choice.concept, (*place, "concept"))
        if choice.seed is not None:
            draft.put(("train", "seed"), choice.seed, (*place, "seed"))
        return draft

    @staticmethod
    def _put_concept(draft: _Draft, entry: ConceptEntry, place: KeyPath) -> None:
        concept = draft.data.get("concept")
        if isinstance(concept, dict) and concept.get("masks") != AUTO:
            draft.data["concept"] = {k: v for k, v in concept.items() if k != "masks"}
        bundle = concepts().get(entry.name)
        values = {
            "images": entry.images or (bundle.picture_name(entry.name) if bundle else None),
            "class": entry.class_name or (bundle.concepts[entry.name] if bundle else None),
            "masks": entry.masks,
            "placeholder": entry.placeholder,
            "prompt": entry.prompt,
        }
        for key, value in values.items():
            if value is not None:
                draft.put(("concept", key), value, place)

    def _cell(self, choice: _Choice) -> Cell | None:
        draft = self._draft(choice)
        concept = draft.data.get("concept")
        images = concept.get("images") if isinstance(concept, dict) else None
        name = choice.concept.name if choice.concept else _concept_name(concept)
        real = choice.concept.real if choice.concept else None
        for key, value in self.grid.variants.get(choice.variant or "", {}).items():
            origin: KeyPath = ("variants", str(choice.variant), key)
            if key in ("concept.images", "concept.masks"):
                value = _filled(value, name, real)
                if lacking := PICTURE.search(str(value)):
                    text = f"the concept {name} has no picture {lacking[1]}"
                    self._add(origin, text, name)
                    return None
            draft.put(tuple(key.split(".")), value, origin)
        # What is compared is not rounded, unless the grid says so.
        given = _section(draft.data.get("output"))
        draft.data["output"] = {"dtype": "float32", **given, "dir": "cell"}
        recipe, wrongs = validate(draft.data, set(), Recipe, RECIPE)
        where = "-".join(
            str(part)
            for part in (choice.method, choice.rank, choice.variant, name)
            if part is not None
        )
        for wrong in wrongs:
            origin_found = draft.origin_of((wrong.path, *wrong.others))
            if origin_found is None:
                self._add(wrong.path, wrong.text, where, in_base=True)
            else:
                self._add(origin_found, wrong.text, where)
        if recipe is None or wrongs:
            return None
        for key in ("images", "masks"):
            if missing := _missing(getattr(recipe.concept, key), f"concept.{key}"):
                path = ("concept", key)
                origin_found = draft.origin_of([path])
                self._add(origin_found or path, missing, where, in_base=origin_found is None)
        adapter = recipe.adapter
        arm = Arm(
            adapter.method,
            adapter.rank if _ranked(adapter.method) else None,
            label_of(adapter.schedule) if _masked(adapter.method) else None,
            choice.variant,
        )
        cell = Cell(arm, name, recipe.train.seed, recipe, real or images or recipe.concept.images)
        folder = writable(self.grid.output) / CELLS / cell.name / "run"
        output = recipe.output.model_copy(update={"dir": str(folder)})
        return Cell(arm, name, cell.seed, recipe.model_copy(update={"output": output}), cell.images)


def _values(values: Sequence[ValueT] | None) -> Sequence[ValueT | None]:
    """Return the values of an axis; one None where there is no such axis."""
    return values or [None]


def _section(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _concept_name(concept: Any) -> str:
    """Return a name for the recipe's own concept: that of a built-in one, or its class."""
    own = _section(concept)
    images = own.get("images")
    if bundle := bundle_of_picture(images):
        return bundle.parts_of(str(images))[0]
    return re.sub(r"[^A-Za-z0-9_]+", "_", str(own.get("class", ""))).strip("_") or "concept"


def _filled(value: Any, concept: str, real: str | list[str] | None) -> Any:
    """Return paths with {concept}, and {picture1} and so on of a concept's folder, filled in."""
    if isinstance(value, list):
        return [_filled(one, concept, real) for one in value]
    if not isinstance(value, str):
        return value
    for number, picture in enumerate(real if isinstance(real, list) else [], 1):
        value = value.replace(f"{{picture{number}}}", picture)
    return value.replace("{concept}", concept)


def _missing(spec: str | list[str] | None, key: str) -> str:
    """Return what is missing of a recipe's pictures, in words; empty if nothing is."""
    if (key, spec) == (MASKS_KEY, AUTO):
        return ""
    for one in [spec] if isinstance(spec, str) else spec or []:
        if bundle := bundle_of_picture(one):
            try:
                picture_files(bundle, one, key)
            except UserError as error:
                return f"{error.what}; {error.do}"
        elif not expanded(one).exists():
            return f"there is no {one}"
    return ""


def _ranked(method: str) -> bool:
    """Whether a method, which may be misspelled, has ranks."""
    known = METHODS.get(method)
    return known is None or known.low_rank


def _masked(method: str) -> bool:
    """Whether a method, which may be misspelled, has a rank schedule."""
    known = METHODS.get(method)
    return known is not None and known.masked
