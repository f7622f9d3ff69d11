"""Holds docs/architecture.md: imports point down only, and each library has its place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tlora_cli"
MAX_LINES = 330

# From the bottom up: a module may import modules of lower rungs only. The name of a package stands
# for all its members, which may import one another.
RUNGS: tuple[tuple[str, ...], ...] = (
    ("errors", "versions"),
    ("builtin", "json_text"),
    ("picture_file",),
    ("recipe_base",),
    ("recipe_defaults", "recipe_sections"),
    ("recipe",),
    ("recipe_errors", "prompts"),
    ("recipe_yaml",),
    ("recipe_io",),
    ("files", "html_page"),
    ("svg_axes",),
    ("toyworld.factors",),
    (
        "toyworld.canvas",
        "toyworld.captions",
        "toyworld.concepts",
        "toyworld.scores",
        "toyworld.sheets",
    ),
    ("toyworld.backgrounds", "toyworld.judge", "toyworld.subjects", "toyworld.suites"),
    ("toyworld.renderer",),
    ("toyworld.export",),
    ("kernels", "objectives", "schedules", "spectra", "swapping"),
    ("gate",),
    ("adapters",),
    ("families",),
    ("toyworld.reading",),
    ("formats",),
    ("analysis", "exports"),
    ("plots",),
    ("analysis_report",),
    ("selection", "updates", "words"),
    ("folding",),
    ("adapter",),
    ("attachment", "data", "devices", "pipelines"),
    ("loading",),
    ("sampling",),
    ("evaluation.encoders", "evaluation.masking", "evaluation.metrics", "evaluation.suites"),
    ("training.choice", "training.prodigy", "training.trial"),
    (
        "training.interruption",
        "training.optimizers",
        "training.pictures",
        "training.progress",
        "training.ranks",
        "training.run_folder",
    ),
    ("training.state", "training.step", "tracking"),
    ("training.setup", "training.execution"),
    ("training.choosing", "training.previews"),
    ("run_report",),
    ("memory",),
    ("conversion", "generation", "merging", "preflight", "training.loop"),
    ("toyworld.studio",),
    ("toyworld.gate", "toyworld.report"),
    ("evaluation",),
    ("publishing",),
    ("comparison",),
    ("cli",),
    ("__main__",),
)
BARE = ("comparison", "preflight", "toyworld", "training")
"""Packages whose `__init__` is empty but for its docstring."""

# Library -> the modules (or packages) that may import it.
PLACES = {
    "accelerate": ("training.loop",),
    "diffusers": ("families",),
    "matplotlib": ("plots",),
    "pydantic": (
        "recipe",
        "recipe_base",
        "recipe_sections",
        "recipe_errors",
        "recipe_io",
        "comparison.grid",
    ),
    "ray": ("comparison.on_ray",),
    "trackio": ("tracking.on_trackio",),
    "typer": ("cli",),
    "wandb": ("tracking.on_wandb",),
}
WITHOUT_TORCH = (
    "errors",
    "recipe",
    "recipe_base",
    "recipe_defaults",
    "recipe_sections",
    "recipe_errors",
    "recipe_io",
    "comparison.grid_io",
    "comparison.planning",
)
SLOW = {"accelerate", "diffusers", "matplotlib", "peft", "torch", "transformers"}
"""Libraries that take seconds to import; `tlora --help` and recipe mistakes don't wait for them."""


@dataclass(frozen=True)
class Import:
    """One imported module; `eager` if importing the file imports it too."""

    name: str
    line: int
    eager: bool


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
"""Name inside the package ('' is the package itself) -> file."""


def _statements(body: list[ast.stmt], eager: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield every statement below, and whether it runs when the file is imported."""
    for statement in body:
        yield statement, eager
        inside = eager and not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from _statements(statement.body, False)
            yield from _statements(statement.orelse, inside)
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, field, []), inside)
        for block in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
            yield from _statements(block.body, inside)


def _imports(module: str) -> list[Import]:
    """Return what a module imports; modules of the package as `tlora_cli.<name>`."""
    found = []
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for statement, eager in _statements(tree.body, True):
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{module}:{statement.lineno}: import by full name"
            base = statement.module or ""
            names = [
                f"{base}.{alias.name}" if _inside(f"{base}.{alias.name}") in MODULES else base
                for alias in statement.names
            ]
        else:
            continue
        found += [Import(name, statement.lineno, eager) for name in dict.fromkeys(names)]
    return found


def _inside(name: str) -> str | None:
    """Return the name inside the package, or None for another library."""
    if name == "tlora_cli":
        return ""
    return name.removeprefix("tlora_cli.") if name.startswith("tlora_cli.") else None


def _belongs(module: str, owner: str) -> bool:
    return module == owner or module.startswith(f"{owner}.")


def _rung(module: str) -> tuple[int, str]:
    """Return the number of the module's rung and its entry there."""
    if module in BARE:
        return -1, module
    for number, entries in enumerate(RUNGS):
        for entry in entries:
            if _belongs(module, entry):
                return number, entry
    raise AssertionError(f"{module} is not in RUNGS: give it a place in the layers")


def test_the_package_was_found() -> None:
    assert len(MODULES) > 20
    assert {"", "errors", "adapters.base", "families.sdxl"} <= MODULES.keys()


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_point_down(module: str) -> None:
    def own_imports(package: str) -> set[str | None]:
        return {_inside(item.name) for item in _imports(package)}

    rung, entry = _rung(module)
    wrong = []
    for item in _imports(module):
        target = _inside(item.name)
        if target is None:
            continue
        if target == "":
            wrong.append(f"line {item.line}: the public API is for users; import the module")
            continue
        assert target in MODULES, f"line {item.line}: no module {item.name}"
        target_rung, target_entry = _rung(target)
        if target_entry == entry:
            if target == entry and module in own_imports(entry):
                wrong.append(f"line {item.line}: {target} and {module} import one another")
        elif target_rung >= rung:
            wrong.append(f"line {item.line}: {target} is not below {module}")
    assert not wrong, f"{MODULES[module].relative_to(ROOT)}: {'; '.join(wrong)}"


def test_the_public_api_leaves_out_the_command_line() -> None:
    targets = [_inside(item.name) for item in _imports("")]
    assert not [target for target in targets if target and _belongs(target, "cli")]


@pytest.mark.parametrize("module", BARE)
def test_bare_packages_hold_only_a_docstring(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    code = [
        statement
        for statement in tree.body
        if not isinstance(statement, ast.Expr)
        and not (isinstance(statement, ast.ImportFrom) and statement.module == "__future__")
    ]
    assert not code


@pytest.mark.parametrize("library", PLACES)
def test_each_library_has_its_place(library: str) -> None:
    users = {
        module
        for module in MODULES
        for item in _imports(module)
        if item.name.partition(".")[0] == library
    }
    assert users, f"nothing imports {library}"
    allowed = PLACES[library]
    wrong = {m for m in users if not any(_belongs(m, place) for place in allowed)}
    assert not wrong, f"{library} belongs in {', '.join(allowed)}"


@pytest.mark.parametrize("module", [name for name in WITHOUT_TORCH if name in MODULES])
def test_recipes_know_nothing_of_torch(module: str) -> None:
    assert not [i for i in _imports(module) if i.name.partition(".")[0] in SLOW]


@pytest.mark.parametrize("module", [m for m in MODULES if _belongs(m, "cli") or m in WITHOUT_TORCH])
def test_starting_up_imports_nothing_slow(module: str) -> None:
    """Follows what importing the module imports, through the packages on the way."""
    waiting, seen = [(module, module)], set()
    while waiting:
        current, route = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for item in _imports(current):
            if not item.eager:
                continue
            assert item.name.partition(".")[0] not in SLOW, f"{route} -> {item.name}"
            target = _inside(item.name)
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
