"""Mutated run folders for `tlora report` and for resuming, and mutated prompts files."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from make_tiny_models import write_tiny_flux, write_tiny_sdxl

from breaking.answers import check_page, run_command
from breaking.guard import Case, Make
from breaking.kills import run_whole
from breaking.mutations import NUMBERS
from breaking.pictures import PROGRAM
from tlora_cli.evaluation.suites import read_prompts

PROMPTS = ("- a V* at sea\n- V* on a hill\n", '{"live": ["a V*"], "object": ["the V*"]}')


def prepare(folder: Path, seed: int) -> Make:
    """Return what makes the cases; files go to `folder`, where a short run is trained first."""
    bases = {"sdxl": folder / "tiny-sdxl", "flux": folder / "tiny-flux"}
    for family, write in (("sdxl", write_tiny_sdxl), ("flux", write_tiny_flux)):
        if not bases[family].exists():
            write(bases[family])
    sample = folder / "sample"
    if not sample.exists():
        run_whole("sdxl tlora adamw", bases, sample)
    case_folder = folder / "case"

    def make(number: int) -> tuple[str, Case]:
        chance = random.Random(f"{seed} folder {number}")
        shutil.rmtree(case_folder, ignore_errors=True)
        if number % 4 == 3:
            case_folder.mkdir()
            name, file = _prompts(chance, case_folder)
            return f"prompts, {name}", lambda: _read_prompts(file)
        shutil.copytree(sample / "run", case_folder)
        resumes = number % 4 == 2
        if resumes:
            (case_folder / "adapter.safetensors").unlink()  # the run was killed at its very end
        name = _mutate(chance, case_folder, resumes)
        if resumes:
            return f"resume, {name}", lambda: _resume(case_folder)
        return f"report, {name}", lambda: _report(case_folder)

    return make


def _report(folder: Path) -> None:
    """Run `tlora report`."""
    status = run_command("report", folder)
    if status == 0:
        check_page(folder / "report.html")


def _resume(folder: Path) -> None:
    """Run `tlora train --resume`; what it can't use, it says."""
    status = run_command("train", "--resume", "--output", folder)
    assert status or (folder / "adapter.safetensors").exists()


def _read_prompts(file: Path) -> None:
    assert all("V*" in prompt for prompt in read_prompts(file))


# --- mutations ------------------------------------------------------------------------------------

LINES = (
    b"", b"x", b"null", b"3", b"[]", b"{}", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe",
    b"\0" * 99, b'{"step": 1}', b'{"step": "1", "loss": 1, "timestep": 2}',
    b'{"step": 1, "step": 2}',
    b'{"step": 1, "loss": NaN, "timestep": 1}', b'{"step": 1, "loss": 1e999, "timestep": 1}',
    b'{"step": 1, "loss": 1' + b"0" * 400 + b', "timestep": 1}',
    b'{"step": 1' + b"0" * 30 + b', "loss": 1, "timestep": 1}',
    b'{"step": 1, "loss": 1, "timestep": 1, "samples": [[1, 2, 3]]}',
    b'{"step": 1, "loss": 1, "timestep": 1, "samples": [[1e308, -1e308]]}',
    b'{"step": 2, "loss": 1e308, "timestep": -1e308, "seconds": -5, "memory_gb": 1e300}',
    b'{"step": 1, "loss": 1, "timestep": 1, "seconds": "x"}',
    b'{"step": "<script>alert(1)</script>", "loss": 1, "timestep": 1}',
)  # fmt: skip
WORDS = ("<script>alert(1)</script>", "../../x", "\u202e", "x" * 9000, "&amp;", '"', "\ud800")


def _mutate(chance: random.Random, folder: Path, resumes: bool) -> str:
    """Change one thing in a run folder; return what."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    if resumes and chance.random() < 0.7:
        files = [path for path in files if path.suffix in (".pt", ".jsonl")]
    file = chance.choice(files)
    known = {"metrics.jsonl": _line, "about.json": _about}
    if (change := known.get(file.name)) is None:
        return f"{file.relative_to(folder)}, {mutate_file(chance, file)}"
    change(chance, file)
    return f"{file.relative_to(folder)}, {change.__name__[1:]}"


def mutate_file(chance: random.Random, file: Path) -> str:
    """Damage a file of any kind, remove it or put something else in its place; return which."""
    change = chance.choice((_bytes, _bytes, _cut, _gone, _kind, _other))
    change(chance, file)
    return change.__name__[1:]


def _bytes(chance: random.Random, file: Path) -> None:
    data = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 1, 9, 200))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    file.write_bytes(data)


def _cut(chance: random.Random, file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: chance.choice((0, 1, len(data) - 1, chance.randrange(len(data))))])


def _gone(chance: random.Random, file: Path) -> None:
    if chance.random() < 0.5 and file.parent.name != "case":
        shutil.rmtree(file.parent)
    else:
        file.unlink()


def _kind(chance: random.Random, file: Path) -> None:
    """Put something else in the file's place."""
    file.unlink()
    make: Callable[[], object] = chance.choice(
        (
            file.mkdir,
            lambda: os.mkfifo(file),
            lambda: file.symlink_to("nothing"),
            lambda: file.symlink_to(file),
            lambda: file.symlink_to("/dev/null"),
        )
    )
    make()


def _other(chance: random.Random, file: Path) -> None:
    content = (b"", b"text", PROGRAM, b"<svg/>", b"PK\x03\x04", b"\x80\x02.", chance.randbytes(999))
    file.write_bytes(chance.choice(content))


def _line(chance: random.Random, file: Path) -> None:
    """Change metrics.jsonl."""
    if chance.random() < 0.2:
        return chance.choice((_bytes, _cut, _gone, _kind))(chance, file)
    lines = file.read_bytes().splitlines()
    what, place = chance.randrange(4), chance.randrange(len(lines))
    if what == 0:
        lines[place] = chance.choice(LINES)
    elif what == 1:
        lines.insert(place, chance.choice(LINES))
    elif what == 2:
        record = json.loads(lines[place])
        record[chance.choice(list(record))] = chance.choice((*NUMBERS, *WORDS))
        lines[place] = json.dumps(record).encode()
    else:
        lines = lines * chance.choice((1, 2, 3000))
        chance.shuffle(lines)
    file.write_bytes(b"\n".join(lines) + chance.choice((b"", b"\n")))
    return None


def _about(chance: random.Random, file: Path) -> None:
    """Change about.json."""
    values = json.loads(file.read_bytes())
    what = chance.randrange(3)
    if what == 0:
        file.write_bytes(chance.choice(LINES))
        return
    inner = values["versions"] if what == 1 else values
    inner[chance.choice(list(inner))] = chance.choice((*NUMBERS, *WORDS))
    file.write_text(json.dumps(values))


def _prompts(chance: random.Random, folder: Path) -> tuple[str, Path]:
    """Write a prompts file."""
    from breaking.recipes import MONSTERS, SNIPPETS

    file = folder / chance.choice(("p.yaml", "p.json"))
    if chance.random() < 0.4:
        name = chance.choice(list(MONSTERS))
        file.write_bytes(MONSTERS[name](chance))
        return name, file
    text = chance.choice(PROMPTS)
    for _ in range(chance.randrange(1, 4)):
        place = chance.randrange(len(text) + 1)
        text = text[:place] + chance.choice((*SNIPPETS, *map(str, NUMBERS), *WORDS)) + text[place:]
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return "snippets", file
