"""Holds docs/architecture.md: imports point down only, and each library has its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import structure
from package_source import MODULES, imports, inside

ROOT = Path(__file__).parents[2]
MAX_LINES = 330

# From the bottom up: a room (what stands directly in `tlora_cli`) imports lower floors only.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("foundation",),
    ("formulas", "photos"),
    ("families", "methods"),
    ("recipe",),
    ("formats",),
    ("injection",),
    ("sampling",),
    ("evaluation",),
    ("training",),
    ("comparison", "study", "tools"),
    ("studio", "toyworld"),
    ("cli",),
    ("__main__",),
)
MAX_ROOMS, MAX_FLOORS = 19, 13

# Library -> the modules (or packages) that may import it.
PLACES = {
    "accelerate": ("training.acceleration",),
    "diffusers": ("families",),
    "jinja2": ("foundation.pages.templates",),
    "markdown_it": ("foundation.pages.markdown",),
    "matplotlib": ("tools.analyze.plots",),
    "pydantic": ("recipe", "comparison.grid"),
    "ray": ("comparison.on_ray",),
    "starlette": ("studio",),
    "trackio": ("training.trackers.on_trackio",),
    "typer": ("cli",),
    "uvicorn": ("studio.server",),
    "wandb": ("training.trackers.on_wandb",),
}
WITHOUT_TORCH = (
    "foundation.bundled",
    "foundation.errors",
    "foundation.plugins",
    "recipe",
    "comparison.grid_io",
    "comparison.planning",
    "toyworld.bundle",
)
LISTED = (
    "families",
    "families.facts",
    "families.spec",
    "families.sdxl",
    "families.flux",
    "families.flux2",
    "families.z_image",
    "families.sd3",
    "families.qwen_image",
    "families.qwen_image_21",
    "families.krea2",
    "families.packed_flow",
    "families.rectified_flow",
    "families.stated",
    "formats.registry",
    "formulas.products",
    "formulas.schedules",
    "methods",
)
"""Modules that recipes and `tlora --help` read; they import what is slow inside functions."""
NO_SPEC = ("methods.starts",)
SLOW = {"accelerate", "diffusers", "matplotlib", "peft", "torch", "transformers"}
"""Libraries that take seconds to import; `tlora --help` and recipe mistakes don't wait for them."""


def _belongs(module: str, owner: str) -> bool:
    return module == owner or module.startswith(f"{owner}.")


def _floor(module: str) -> int:
    """Return the number of the floor that a module's room stands on."""
    room = module.partition(".")[0]
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    raise AssertionError(f"{room} is not in FLOORS: give it a place")


def test_the_package_was_found() -> None:
    assert len(MODULES) > 20
    assert {"", "foundation.errors", "methods.tlora", "families.sdxl"} <= MODULES.keys()


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_point_down(module: str) -> None:
    wrong = []
    for item in imports(module):
        target = inside(item.name)
        if target is None:
            continue
        if target == "":
            wrong.append(f"line {item.line}: the public API is for users; import the module")
            continue
        assert target in MODULES, f"line {item.line}: no module {item.name}"
        same_room = target.partition(".")[0] == module.partition(".")[0]
        if not same_room and _floor(target) >= _floor(module):
            wrong.append(f"line {item.line}: {target} is not below {module}")
    assert not wrong, f"{MODULES[module].relative_to(ROOT)}: {'; '.join(wrong)}"


def test_no_modules_import_one_another_in_a_circle() -> None:
    finished: set[str] = set()

    def follow(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join((*way, module))}"
        if module in finished:
            return
        for item in imports(module):
            target = inside(item.name)
            # A package's own imports of its members are what makes them its members.
            if target and not (way and module == target.rpartition(".")[0]):
                follow(target, (*way, module))
        finished.add(module)

    for module in MODULES:
        follow(module, ())


def test_the_house_is_not_higher_or_wider() -> None:
    rooms = structure.rooms_of()
    floors, upward = structure.floors_of(rooms)
    assert not upward
    assert max(floors.values()) <= MAX_FLOORS
    assert len(rooms) <= MAX_ROOMS
    assert rooms.keys() - {"__init__"} == {room for rooms in FLOORS for room in rooms}


def test_the_public_api_leaves_out_the_command_line() -> None:
    targets = [inside(item.name) for item in imports("")]
    assert not [target for target in targets if target and _belongs(target, "cli")]


@pytest.mark.parametrize("library", PLACES)
def test_each_library_has_its_place(library: str) -> None:
    users = {
        module
        for module in MODULES
        for item in imports(module)
        if item.name.partition(".")[0] == library
    }
    assert users, f"nothing imports {library}"
    allowed = PLACES[library]
    wrong = {m for m in users if not any(_belongs(m, place) for place in allowed)}
    assert not wrong, f"{library} belongs in {', '.join(allowed)}"


LIGHT = [m for m in MODULES if any(_belongs(m, place) for place in WITHOUT_TORCH)]


@pytest.mark.parametrize("module", LIGHT)
def test_recipes_know_nothing_of_torch(module: str) -> None:
    assert not [i for i in imports(module) if i.name.partition(".")[0] in SLOW]


STARTS_UP = [
    module
    for module in MODULES
    if module not in NO_SPEC
    and (
        module in LIGHT
        or _belongs(module, "cli")
        or any(module == one or (one == "methods" and _belongs(module, one)) for one in LISTED)
    )
]


@pytest.mark.parametrize("module", STARTS_UP)
def test_starting_up_imports_nothing_slow(module: str) -> None:
    """Follows what importing the module imports, through the packages on the way."""
    waiting, seen = [(module, module)], set()
    while waiting:
        current, route = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for item in imports(current):
            if not item.eager:
                continue
            assert item.name.partition(".")[0] not in SLOW, f"{route} -> {item.name}"
            target = inside(item.name)
            if target is None:
                continue
            parts = target.split(".") if target else []
            waiting += [
                (".".join(parts[:length]), f"{route} -> {'.'.join(parts[:length]) or 'tlora_cli'}")
                for length in range(len(parts) + 1)
            ]
    assert seen


@pytest.mark.parametrize("module", MODULES)
def test_files_stay_short(module: str) -> None:
    lines = len(MODULES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines; split it by what it does"
