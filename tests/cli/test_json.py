"""`--json`: what each command prints is what the published schema says; and how much is said."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import json_reference as reference
import jsonschema
import pytest
from diffusers.utils import logging
from PIL import Image
from study_folders import answer_all, small_study
from training_runs import write_recipe

from tlora_cli.cli import commands
from tlora_cli.cli.app import main
from tlora_cli.cli.event_schema import check_event
from tlora_cli.cli.events import COMMANDS, EVENTS
from tlora_cli.foundation.errors import Status
from tlora_cli.study.trials import EQUAL, Trial

Printed = Callable[..., list[dict[str, Any]]]
SCHEMA = json.loads(reference.SCHEMA.read_text("utf-8"))
CHECK = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Yield a function that runs `tlora` and gives its status and both streams."""
    monkeypatch.chdir(tmp_path)
    # As in a process of its own, where libraries are hushed before they are imported.
    before = logging.get_verbosity()
    logging.set_verbosity_error()

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
        return main(), *capfd.readouterr()

    yield run
    logging.set_verbosity(before)


@pytest.fixture
def printed(said: Callable[..., tuple[int, str, str]]) -> Printed:
    """Return a function that runs `tlora --json` and gives its objects, held to the schema."""

    def run(*arguments: object) -> list[dict[str, Any]]:
        status, out, err = said(*arguments, "--json")
        assert err == ""
        objects = [json.loads(line) for line in out.splitlines()]
        for one in objects:
            CHECK.validate(one)
        assert objects[-1]["event"] == "end" and objects[-1]["status"] == status
        return objects

    return run


def events(objects: list[dict[str, Any]]) -> list[str]:
    return [one["event"] for one in objects if one["event"] != "message"]


def only(objects: list[dict[str, Any]], event: str) -> dict[str, Any]:
    [found] = [one for one in objects if one["event"] == event]
    return found


# --- the documents --------------------------------------------------------------------------------


def test_the_page_and_the_schema_are_the_programs() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    write = "run `python scripts/json_reference.py`"
    assert reference.PAGE.read_text("utf-8") == reference.page(), write
    assert reference.SCHEMA.read_text("utf-8") == reference.schema_text(), write
    assert {name for one in EVENTS.values() for name in one.commands} <= set(COMMANDS)


def test_the_schema_refuses_what_is_not_said_there() -> None:
    end = {"version": 1, "command": "train", "event": "end", "status": 0, "kind": "done"}
    assert CHECK.is_valid(end)
    for wrong in ({"status": 7}, {"event": "ended"}, {"version": 2}, {"more": 1}):
        assert not CHECK.is_valid({**end, **wrong}), wrong
    for name, fields in (("end", {"status": 0}), ("nothing", {})):
        with pytest.raises(ValueError, match=f"the event {name}"):
            check_event(name, fields)


def test_every_command_has_a_level_and_those_that_print_objects_have_json() -> None:
    from typer.main import get_command

    found, levels = set(), []

    def look(command: Any, name: str) -> None:
        for word, inner in getattr(command, "commands", {}).items():
            look(inner, f"{name} {word}".strip())
        if not hasattr(command, "commands"):
            options = {word for one in command.params for word in one.opts}
            levels.append({"--quiet", "-q", "--log-level"} <= options)
            if any(one.name == "objects" for one in command.params):
                found.add(name)

    look(get_command(commands.app), "")
    assert found == set(COMMANDS)
    assert all(levels) and len(levels) > 20


# --- each command ---------------------------------------------------------------------------------


def test_train_sample_convert_and_evaluate(
    printed: Printed, tiny_sdxl: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tiny_sdxl, tmp_path, train__steps=3)
    run = printed("train", "--config", recipe)
    assert events(run) == ["run", "step", "step", "step", "trained", "end"]
    assert [one["step"] for one in run if one["event"] == "step"] == [1, 2, 3]
    adapter = only(run, "trained")["adapter"]
    assert Path(adapter).is_file()
    assert only(run, "run") == {
        **{"version": 1, "command": "train", "event": "run"},
        **{"folder": str(tmp_path / "run"), "recipe": str(recipe), "steps": 3},
    }
    [finished] = [
        one["text"]
        for one in printed("train", "--config", recipe, "--resume")
        if one["event"] == "message"
    ]
    assert "already complete" in finished

    drawn = printed(
        *("sample", "--adapter", adapter, "--prompt", "V*", "--count", 2, "--contact-sheet")
    )
    assert events(drawn) == ["picture", "picture", "picture", "end"]
    pictures = [one for one in drawn if one["event"] == "picture"]
    assert [(one["prompt"], one["seed"]) for one in pictures] == [
        ("sks dog", 0),
        ("sks dog", 1),
        (None, None),
    ]
    assert all(Path(one["file"]).is_file() for one in pictures)

    converted = printed("convert", adapter, "--to", "kohya", "--output", "k.safetensors")
    assert events(converted) == ["converted", "end"]
    assert only(converted, "converted")["format"] == "kohya"

    given = ("--metric", "clip=toy-clip", "--mask", "none", "--count", 1, "--base-count", 1)
    scored = printed("evaluate", "--adapter", adapter, *given)
    assert set(events(scored)) == {"progress", "evaluated", "end"}
    assert only(scored, "evaluated")["scores"]["clip IS"] <= 1


def test_validate(printed: Printed, tiny_sdxl: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tiny_sdxl, tmp_path)
    found = printed("validate", recipe)
    assert {one["level"] for one in found if one["event"] == "finding"} == {"ok"}
    assert only(found, "summary")["next"] == f"tlora train --config {recipe}"
    wrong = printed("validate", recipe, "--set", "base=nobody/no-such-model")
    [base] = [one for one in wrong if one.get("level") == "problem"]
    assert base["kind"] == "missing" and only(wrong, "end")["status"] == Status.MISSING
    assert only(wrong, "summary")["next"] is None


def test_merge_and_publish(printed: Printed, trained: Path, tmp_path: Path) -> None:
    written = printed("merge", trained, "--output", tmp_path / "whole.safetensors")
    assert events(written) == ["merged", "end"]
    merged = only(written, "merged")
    assert Path(merged["output"]).is_file() and merged["dtype"] == "fp32"
    assert any("rank" in note for note in merged["notes"])
    assert [one["event"] for one in written].count("message") == 0

    base = ("--base", "stabilityai/stable-diffusion-xl-base-1.0")
    told = printed("publish", trained, "--output", tmp_path / "page", *base)
    assert events(told) == ["published", "end"]
    published = only(told, "published")
    assert published["address"] is None
    assert all(Path(published[key]).exists() for key in ("folder", "card", "page"))


def test_init_and_mask(printed: Printed, tmp_path: Path) -> None:
    """The first photo has a subject, the second one is noise, which is doubted."""
    photo = "toy:momo/1"
    begun = printed("init", photo, "--class", "cat", "--base", "toy-sdxl", "--output", "momo.yaml")
    assert set(events(begun)) == {"finding", "initialized", "end"}
    recipe = only(begun, "initialized")
    assert (recipe["base"], recipe["family"]) == ("toy-sdxl", "sdxl")
    assert only(printed("recipe", "check", recipe["recipe"]), "recipe")["ok"]
    assert recipe["next"] == "tlora train --config momo.yaml"
    again = printed("init", photo, "--class", "cat", "--base", "toy-sdxl", "--output", "momo.yaml")
    assert events(again) == ["error", "end"]

    plain = tmp_path / "gray.png"
    Image.new("RGB", (96, 96), "gray").save(plain)
    found = printed("mask", photo, plain, "--out", "masks")
    assert events(found) == ["mask", "mask", "error", "end"]
    good, bad = [one for one in found if one["event"] == "mask"]
    assert 0 < good["coverage"] < 1 and good["doubt"] is None
    assert Path(good["mask"]).is_file() and Path(good["overlay"]).is_file()
    assert bad["photo"] == str(plain) and bad["doubt"]
    assert only(found, "error")["where"] == bad["overlay"]
    assert only(found, "end")["kind"] == "mistake"


def always_first(trial: Trial, question: str, draw: random.Random) -> str:
    """Prefer the first method, where the pictures differ."""
    return "same" if trial.kind == EQUAL else "left" if trial.first_left else "right"


def test_study_report(printed: Printed, tmp_path: Path) -> None:
    study = small_study(tmp_path, ("tlora", "lora"), concepts=2, pairs=12)
    for name in ("Ann", "Bob"):
        answer_all(study, name, always_first)
    answer_all(study, "Lefty", lambda trial, question, draw: "left")
    told = only(printed("study", "report", study.folder), "studied")
    assert all(Path(file).is_file() for file in told["files"])
    [overall] = [one for one in told["shares"] if one["question"] == "overall"]
    assert (overall["first"], overall["other"], overall["share"]) == ("tlora", "lora", 1)
    assert overall["answers"] > 0 and "tlora" in told["verdict"][0]
    assert told["left_out"] == ["Lefty"]


def test_recipe_check(printed: Printed, tiny_sdxl: Path, tmp_path: Path) -> None:
    good = write_recipe(tiny_sdxl, tmp_path)
    bad = tmp_path / "bad.yaml"
    bad.write_text(good.read_text().replace('"rank": 4', '"rank": -4'))
    objects = printed("recipe", "check", good, bad, "none.yaml")
    assert events(objects) == ["recipe", "recipe", "error", "end"]
    first, second, third, end = objects
    assert first["ok"] and first["mistakes"] == []
    assert not second["ok"] and second["mistakes"][0]["key"] == "adapter.rank"
    assert second["mistakes"][0]["line"] == 1 and second["mistakes"][0]["set"] is None
    assert third["where"] == "none.yaml" and third["kind"] == "mistake"
    assert end["status"] == Status.MISTAKE
    [given, _] = printed("recipe", "check", good, "--set", "train.steps=x")
    assert given["mistakes"][0] == {
        **{"key": "train.steps", "line": None, "set": "train.steps=x"},
        "text": given["mistakes"][0]["text"],
    }


# --- errors, signals, warnings --------------------------------------------------------------------


def test_errors(printed: Printed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for words, kind in (
        (("train", "--oops"), "mistake"),
        (("sample",), "mistake"),
        (("train", "--config", "none.yaml"), "mistake"),
        (("evaluate", "--count", "0"), "mistake"),
        (("convert", "none", "--output", tmp_path / "k.safetensors"), "mistake"),
    ):
        error, end = printed(*words)
        assert (error["event"], error["kind"], error["fix"] != "") == ("error", kind, True)
        assert end["kind"] == kind

    def fault(*_: object, **__: object) -> None:
        warnings.warn("it is odd", stacklevel=1)
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("tlora_cli.cli.recipe.examine_recipe", fault)
    warning, error, end = printed("recipe", "check", "x.yaml")
    assert (warning["level"], warning["text"]) == ("warning", "it is odd")
    assert error["what"] == "internal error: ZeroDivisionError: by nothing"
    assert end == {**end, "status": 1, "kind": "fault"}

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tlora_cli.cli.recipe.examine_recipe", stop)
    stopped, end = printed("recipe", "check", "x.yaml")
    assert stopped["signal"] == "SIGINT" and end["kind"] == "interrupted"

    def mistaken(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ImportError("it was not imported") from error

    monkeypatch.setattr("tlora_cli.cli.recipe.examine_recipe", mistaken)
    stopped, end = printed("recipe", "check", "x.yaml")
    assert stopped["signal"] == "SIGINT" and end["kind"] == "interrupted"


# --- how much is said -----------------------------------------------------------------------------


def test_quiet(said: Callable[..., tuple[int, str, str]], tiny_sdxl: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tiny_sdxl, tmp_path, train__steps=1)
    status, out, _ = said("validate", recipe, "--quiet", "--set", "base=nobody/no-such-model")
    assert status == 3 and out.startswith("problem  base") and "\nok " not in out
    status, out, err = said("train", "--config", recipe, "-q")
    run = tmp_path / "run"
    lines = f"adapter: {run / 'adapter.safetensors'}\nreport:  {run / 'report.html'}\n"
    assert (status, out, err) == (0, lines, "")
    assert said("recipe", "check", recipe, "--quiet") == (0, "", "")
    merged = tmp_path / "m.safetensors"
    quiet = said("merge", run / "adapter.safetensors", "--output", merged, "--quiet")
    assert quiet == (0, f"wrote {merged} in fp32\n", "")
    status, out, err = said("recipe", "check", "none.yaml", "--log-level", "error")
    assert status == 2 and err.startswith("error: ")
    assert said("recipe", "check", recipe, "--log-level", "loud")[0] == 2


def test_debug_shows_where_a_fault_is(
    said: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setenv("TLORA_DEBUG", "0")
    monkeypatch.setattr("tlora_cli.cli.recipe.examine_recipe", fault)
    status, _, err = said("recipe", "check", "x.yaml", "--log-level", "debug")
    assert status == 1 and "Traceback" in err
