"""Holds what surrounds the code together: project file, versions, scripts, Docker, README."""

from __future__ import annotations

import ast
import importlib
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
UNPINNED = {"trackio"}
"""Extras that ask for older versions than the pinned ones; pyproject.toml says why."""
IMPORT_NAMES = {
    "markdown-it-py": ["markdown_it"],
    "opencv-python-headless": ["cv2"],
    "pillow": ["PIL"],
    "pydantic": ["pydantic", "pydantic_core"],
    "pyyaml": ["yaml"],
}


def _requirements() -> list[Requirement]:
    """Return the dependencies, those of the extras included, without the project itself."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]
    found = [Requirement(line) for line in lines]
    return [requirement for requirement in found if requirement.name != PROJECT["name"]]


def _pins() -> dict[str, Version]:
    """Return the pinned versions by canonical name."""
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert version, f"not a pin: {line}"
            assert canonicalize_name(name) not in pins, f"pinned twice: {name}"
            pins[canonicalize_name(name)] = Version(version)
    return pins


def _docker() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions as (name, arguments)."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def _docker_arguments() -> dict[str, str]:
    """Return the build arguments with their defaults."""
    given = [arguments.partition("=") for name, arguments in _docker() if name == "ARG"]
    return {name: value for name, _, value in given}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


# --- versions -------------------------------------------------------------------------------


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    pins, requirements = _pins(), _requirements()
    assert len(requirements) > 15
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name in UNPINNED:
            assert requirement.specifier and name not in pins
            continue
        assert name in pins, f"constraints.txt lacks {name}"
        assert requirement.specifier, f"{name} has no lower bound"
        assert requirement.specifier.contains(pins[name]), f"{requirement} excludes {pins[name]}"


def test_pins_fit_any_build_of_a_version() -> None:
    assert not [name for name, version in _pins().items() if version.local]


def test_what_the_code_imports_is_declared() -> None:
    declared = {canonicalize_name(requirement.name) for requirement in _requirements()}
    names = {"tlora_cli"}
    for name in declared:
        names.update(IMPORT_NAMES.get(name, [name.replace("-", "_")]))
    imported = {}
    for path in sorted((ROOT / "tlora_cli").rglob("*.py")):
        if path.parent.name == "node":  # runs in ComfyUI; its own test says what it may import
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                found = [node.module or ""]
            imported.update({name.partition(".")[0]: path.name for name in found})
    assert len(imported) > 10
    known = names | sys.stdlib_module_names
    assert not {name: where for name, where in imported.items() if name not in known}


def test_torchvision_is_used_nowhere() -> None:
    """It must match torch's build exactly, and nothing here needs it."""
    files = [
        *(ROOT / "tlora_cli").rglob("*.py"),
        *(ROOT / "scripts").glob("*.py"),
        *(ROOT / name for name in ("pyproject.toml", "constraints.txt", "Dockerfile")),
    ]
    assert len(files) > 20
    assert not [path for path in files if "torchvision" in path.read_text(encoding="utf-8")]


# --- what is installed ----------------------------------------------------------------------


@pytest.mark.parametrize("script", PROJECT["scripts"])
def test_console_script_resolves(script: str) -> None:
    module, _, function = PROJECT["scripts"][script].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_package_is_typed() -> None:
    assert (ROOT / "tlora_cli" / "py.typed").is_file()


def test_what_is_no_python_is_installed_too() -> None:
    """Templates, the style, models and pictures: every file is one that pyproject.toml names."""
    package = ROOT / "tlora_cli"
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    patterns = tool["setuptools"]["package-data"]["tlora_cli"]
    named = {path for pattern in patterns for path in package.glob(pattern)}
    files = {
        path
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__"
    }
    assert len({path for path in files if path.suffix == ".jinja"}) >= 8
    assert package / "foundation" / "pages" / "style.css" in files
    assert files <= named


@pytest.mark.parametrize("script", ["scripts/test", "scripts/demo", ".ci/run"])
def test_scripts_can_be_run(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines


def test_ci_runs_the_tests() -> None:
    assert "./scripts/test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


# --- Docker ---------------------------------------------------------------------------------


def test_docker_copies_what_exists() -> None:
    kept = {
        line[1:].rstrip("/")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    sources = [
        source
        for name, arguments in _docker()
        if name == "COPY"
        for source in arguments.split()[:-1]
        if not source.startswith("--")
    ]
    assert {"constraints.txt", "pyproject.toml", "tlora_cli"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
    assert kept == set(sources), "the image's context and what it copies differ"


def test_docker_runs_tlora_as_a_plain_user() -> None:
    instructions = _docker()
    last = {name: arguments for name, arguments in instructions}
    assert last["ENTRYPOINT"] == '["tini", "--", "tlora"]'
    assert last["USER"] not in ("root", "0")
    names = [name for name, _ in instructions]
    assert names[:2] == ["ARG", "FROM"]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")


def test_docker_brings_an_init_and_what_compiling_takes() -> None:
    installed = next(a for name, a in _docker() if name == "RUN" and "apt-get install" in a)
    assert {"tini", "gcc", "libc6-dev", "python3-dev"} <= set(installed.split())


def test_docker_installs_pinned_versions() -> None:
    installs = [a for name, a in _docker() if name == "RUN" and "pip install" in a]
    assert len(installs) == 2
    assert all("-c /opt/tlora/constraints.txt" in arguments for arguments in installs)
    assert installs[0].endswith(" ${TORCH}") and _docker_arguments()["TORCH"] == "torch"
    assert installs[1].endswith('"/opt/tlora${EXTRAS}"')
    assert _docker_arguments()["EXTRAS"] == "[cuda]"


def test_docker_base_is_a_fixed_version() -> None:
    image = next(arguments for name, arguments in _docker() if name == "FROM")
    assert image == "${BASE}"
    base = _docker_arguments()["BASE"]
    assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu24\.04", base)


# --- README ---------------------------------------------------------------------------------


def test_python_of_the_readme_uses_the_public_api() -> None:
    tlora = importlib.import_module("tlora_cli")
    blocks = _blocks("python")
    assert len(blocks) == 3
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    names = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "tlora"
    }
    assert names == {"attach", "load_adapter"}
    assert names <= set(tlora.__all__)
