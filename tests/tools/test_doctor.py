"""`tlora doctor`: what it says of this machine, and of machines that it is made to believe in."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import psutil
import pytest
import torch
from fake_hub import fake_hub, reach
from packaging.requirements import Requirement
from training_runs import ROOT

from tlora_cli.cli.app import main
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.packages import TESTED
from tlora_cli.tools.preflight import doctor, gpus, libraries
from tlora_cli.tools.preflight.findings import Finding
from tlora_cli.tools.preflight.gpus import Card

GIB = 2**30
H100 = Card("NVIDIA H100", 80 * GIB)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tlora", *words])
    return main()


def levels(findings: object) -> list[str]:
    return [finding.level for finding in findings]  # type: ignore[attr-defined]


def test_it_looks_at_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run(monkeypatch, "doctor", "--json") == 0
    printed = capsys.readouterr().out
    assert "hf_secret" not in printed
    answer = json.loads(printed)
    assert answer["ok"] is True
    found = {one["about"]: one for one in answer["findings"]}
    assert set(found) >= {
        *("python", "driver", "torch", "cuda", "bf16", "diffusers", "transformers"),
        *("accelerate", "xformers", "bitsandbytes", "compiler", "hub", "hub token"),
        *("hub cache", "cpu", "memory", "this folder"),
    }
    assert found["torch"]["text"].startswith(torch.__version__.partition("+")[0])
    assert found["hub token"]["text"] == "one is set"
    assert "HF_HUB_OFFLINE" in found["hub"]["text"]  # tests are offline
    assert all(one["do"] for one in answer["findings"] if one["level"] != "ok")


def test_a_cpu_build_beside_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A driver that answers, as its program does; torch is what is installed here."""
    program = tmp_path / "nvidia-smi"
    line = "NVIDIA GeForce RTX 4090, 580.95.05, 24564, [N/A], GPU-1234"
    program.write_text(f"#!/bin/sh\necho '{line}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    [card] = gpus.driver_cards() or []
    assert (card.name, card.total, card.used) == ("NVIDIA GeForce RTX 4090", 24564 * 2**20, None)
    assert run(monkeypatch, "doctor") == 0  # the CPU still trains
    printed = capsys.readouterr().out
    assert re.search(r"^ok +driver +580\.95\.05, NVIDIA GeForce RTX 4090$", printed, re.MULTILINE)
    assert re.search(
        r"^warning +cuda +a card is there, but torch .* is a CPU build$", printed, re.M
    )
    assert "fix: pip install --force-reinstall" in printed


def test_a_library_that_does_not_load_makes_training_impossible(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    assert run(monkeypatch, "doctor") == 3
    printed = capsys.readouterr().out
    assert re.search(
        r"^problem +peft +\S+ can't be loaded: ModuleNotFoundError", printed, re.MULTILINE
    )
    assert "1 problem" in printed.splitlines()[-1]


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    assert {name: pins[name] for name in TESTED} == TESTED


@pytest.mark.parametrize(
    ("installed", "bound", "level", "text"),
    [
        ("unknown", None, "problem", "is not installed"),
        (TESTED["peft"], "peft>=0.21", "ok", TESTED["peft"]),
        ("0.20.0", "peft>=0.21", "problem", "0.20.0 is too old: peft>=0.21"),
        ("0.99.0", "peft>=0.21", "ok", f"0.99.0 (tested: {TESTED['peft']})"),
        ("1.0.0", "peft>=0.21", "warning", f"1.0.0, but {TESTED['peft']} is what is tested"),
    ],
)
def test_versions(installed: str, bound: str | None, level: str, text: str) -> None:
    wanted = Requirement(bound) if bound else None
    found = libraries.look_at_version("peft", installed, wanted)
    assert (found.level, found.text) == (level, text)
    assert bool(found.do) == (level != "ok")


@pytest.mark.parametrize(
    ("seen", "plugged_in", "level"),
    [([H100], 1, "ok"), (None, 0, "ok"), (None, 1, "warning"), ([], 0, "warning")],
)
def test_the_driver(seen: list[Card] | None, plugged_in: int, level: str) -> None:
    assert levels(doctor.look_at_driver(seen, plugged_in)) == [level]


def pretend(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], bf16: bool = True
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "sm_100a"])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)


def test_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0))
    assert levels(doctor.look_at_card(H100)) == ["ok", "ok"]
    [busy, _] = doctor.look_at_card(Card("X", 80 * GIB, used=30 * GIB))
    assert busy.level == "warning" and "other programs take 32.2 GB" in busy.text
    pretend(monkeypatch, (10, 3))
    assert levels(doctor.look_at_card(H100)) == ["ok", "ok"]
    pretend(monkeypatch, (12, 0))
    assert levels(doctor.look_at_card(H100)) == ["ok", "problem", "ok"]
    pretend(monkeypatch, (7, 5), bf16=False)
    [*_, bf16] = doctor.look_at_card(H100)
    assert bf16 == Finding("warning", "bf16", "the card has none", "set train.precision: fp16 in "
                           "recipes")  # fmt: skip


def test_cards_on_the_bus(tmp_path: Path) -> None:
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"),
                               ("c", "0x8086", "0x030000")):  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    assert gpus.cards_on_the_bus(tmp_path) == 1
    assert gpus.cards_on_the_bus(tmp_path / "none") == 0


def test_the_memory_of_a_container_is_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = dict.fromkeys(("MemFree", "Buffers", "Cached", "Shmem", "Active", "Inactive"), 1000)
    sizes = {"MemTotal": 32_000_000, "MemAvailable": 16_000_000, **others}
    lines = [f"{name}: {size} kB\n" for name, size in sizes.items()]
    (tmp_path / "meminfo").write_text("".join(lines))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert gpus.free_memory(tmp_path) == 16_000_000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert gpus.free_memory(tmp_path) == 16_000_000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert gpus.free_memory(tmp_path) == 4000
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "none"))
    assert gpus.free_memory(tmp_path) is None


@pytest.mark.parametrize("text", ["24gb", "24GB", " 24 gb", "24g", "24"])
def test_sizes_of_cards(text: str) -> None:
    assert gpus.card_size(text) == 24 * GIB


@pytest.mark.parametrize("text", ["", "gb", "big", "-1", "0.5", "nan", "inf", "24tb", "99999"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match="no size of a card"):
        gpus.card_size(text)


@pytest.mark.parametrize(
    ("token", "level", "text"),
    [("hf_good", "ok", "it is me's"), ("hf_old", "warning", "it is not accepted"),
     ("", "warning", "none is set")],
)  # fmt: skip
def test_the_token_is_tried(
    token: str, level: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_hub({}, token="hf_good") as (address, _):
        reach(monkeypatch, address)
        monkeypatch.setenv("HF_TOKEN", token)
        hub, found = doctor._hub()
    assert hub == Finding("ok", "hub", f"{address} answers (200)")
    assert (found.level, found.about) == (level, "hub token")
    assert found.text.startswith(text) and (not token or token not in found.text)


def test_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    reach(monkeypatch, "http://127.0.0.1:9")
    _, found = doctor._hub()
    assert found.level == "warning" and "127.0.0.1:9 can't be reached" in found.text


def test_a_cache_that_can_not_be_written() -> None:
    [found] = doctor._cache(Path("/proc/none/hub"))
    assert found.level == "warning" and "can't be written" in found.text
