"""SIGINT, SIGTERM and SIGHUP, sent to real processes of the command line, also as process 1."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compare_runs import grid_values, write_grid
from training_runs import ROOT, draw_picture, run, same_tensors, tlora, write_recipe

from tlora_cli import UserError
from tlora_cli.cli.app import main
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation import stopping
from tlora_cli.training.interruption import Interruption

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class Process:
    """A `tlora` of its own, whose words are read as they come."""

    def __init__(self, *arguments: object, first: bool = False, before: tuple[str, ...] = ()):
        # As process 1 of a namespace of its own; the signal goes to it, not to unshare.
        apart = ("unshare", "--pid", "--fork", "--kill-child") if first else ()
        words = (*apart, *before, sys.executable, "-m", "tlora_cli", *map(str, arguments))
        self._first, self.said = first, ""
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def stop(self, number: signal.Signals) -> int:
        """Send the signal and return the exit status."""
        target = self.process.pid
        if self._first:
            [target] = map(int, _children(target))
        os.kill(target, number)
        return self.end()

    def end(self) -> int:
        """Return the exit status."""
        status = self.process.wait(timeout=120)
        self._reader.join(10)
        assert "Traceback" not in self.said and "Exception ignored" not in self.said, self.said
        return status

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait for a moment."""
        deadline = time.monotonic() + 120
        while not until():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def wait_for(self, words: str) -> None:
        """Wait until it has said something."""
        self.wait(lambda: words in self.said)


def _children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def can_unshare() -> bool:
    done = subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True)
    return done.returncode == 0


with contextlib.suppress(OSError):
    CAN_UNSHARE = can_unshare()
needs_unshare = pytest.mark.skipif(
    not globals().get("CAN_UNSHARE"), reason="a namespace of processes needs root"
)
PID_ONE = [False, pytest.param(True, marks=needs_unshare)]


@pytest.fixture
def waiting(tmp_path: Path) -> Path:
    """Return a pipe in place of a recipe: a command that reads it waits until it is closed."""
    fifo = tmp_path / "recipe.yaml"
    os.mkfifo(fifo)
    return fifo


@pytest.mark.parametrize("first", PID_ONE, ids=["", "as process 1"])
@pytest.mark.parametrize("number", NUMBERS)
def test_the_status_says_the_signal(number: signal.Signals, first: bool, waiting: Path) -> None:
    command = Process("recipe", "show", waiting, first=first)
    with waiting.open("w"):  # returns once the command has opened it, too
        assert command.stop(number) == 128 + number
    assert command.said == (
        f"stopped by {number.name}; nothing was left half done; again:\n"
        f"  tlora recipe show {waiting}\n"
    )


def test_what_nohup_starts_lives_on(waiting: Path) -> None:
    command = Process("recipe", "show", waiting, before=("nohup",))
    with waiting.open("w") as text:
        os.kill(command.process.pid, signal.SIGHUP)
        time.sleep(0.2)
        text.write("nonsense: 1")
    assert command.end() == 2 and "line 1: nonsense" in command.said


def test_a_terminal_that_is_closed(waiting: Path, tmp_path: Path) -> None:
    """Nothing can be printed any more, and the command still ends in order."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        words = [sys.executable, "-m", "tlora_cli", "recipe", "show", str(waiting)]
        os.execve(sys.executable, words, environment())
    with waiting.open("w"):
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129


def test_a_stop_that_python_drops_comes_again(capsys: pytest.CaptureFixture[str]) -> None:
    """What is raised while an object is collected goes no further."""

    class Collected:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    with pytest.raises(stopping.Stopped) as stop, stopping.stoppable():
        Collected()
        time.sleep(5)
    assert stop.value.number == signal.SIGTERM
    assert capsys.readouterr().err == ""
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("number", NUMBERS)
def test_a_stop_that_a_library_swallows_comes_again(number: signal.Signals) -> None:
    """Libraries in C take an exception for a sign of theirs and go on."""
    swallowed = []
    with pytest.raises(stopping.Stopped) as stop, stopping.stoppable():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except BaseException as error:
            swallowed.append(type(error))
        time.sleep(5)
    assert stop.value.number == number and swallowed == [stopping.Stopped]


@pytest.mark.parametrize("wrong", [ValueError("no shape"), UserError("the file is damaged")])
def test_an_error_in_place_of_a_stop_is_the_stop(
    wrong: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As torch does with what is raised while it looks at the type of a value."""

    def replaced(*_: object) -> None:
        with contextlib.suppress(BaseException):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(5)
        raise wrong

    monkeypatch.setattr("tlora_cli.cli.recipe.load_recipe", replaced)
    monkeypatch.setattr("sys.argv", ["tlora", "recipe", "show", "a.yaml"])
    assert main() == 129
    assert capfd.readouterr().err.startswith("stopped by SIGHUP; ")
    time.sleep(2 * stopping.AGAIN)  # and no signal comes after the end


def test_errors_that_lead_back_to_each_other_are_no_stop() -> None:
    """As where an error is raised from another that was raised while it was handled."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    with stopping.stoppable():
        assert stopping.stop_behind(first) is None


def test_a_hang_up_never_insists(capfd: pytest.CaptureFixture[str]) -> None:
    """Closing a terminal sends several; the hand that stops a run sends one of another kind."""
    asked = Interruption()
    with asked.watching():
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        assert asked.asked and asked.number == signal.SIGHUP
        with pytest.raises(stopping.Stopped) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert stop.value.number == signal.SIGINT
    assert capfd.readouterr().err.count("stopping after this step") == 1


# --- whole commands -------------------------------------------------------------------------------

PREVIEW = {"every": 2, "prompts": ["a V*"], "count": 4}


def photo(folder: Path) -> Path:
    """Write a picture in which GrabCut finds a subject: a light square."""
    from PIL import Image, ImageDraw

    path = draw_picture(folder / "photo.png")
    with Image.open(path) as picture:
        picture = picture.convert("RGB").point(lambda value: value // 4)
    ImageDraw.Draw(picture).rectangle((30, 24, 66, 72), fill="white")
    picture.save(path)
    return path


def command_after(said: str) -> list[str]:
    """Return the arguments of the command that is said to go on."""
    found = re.findall(r"^  (tlora .+)$", said, re.MULTILINE)
    assert found, said
    return shlex.split(found[-1])[1:]


MOMENTS: dict[str, Callable[[Process, Path], None]] = {
    "imports": lambda command, run: command.wait(lambda: (run.parent / "asked").exists()),
    "encoders": lambda command, run: command.wait_for("loading text encoders"),
    "denoiser": lambda command, run: command.wait_for("loading denoiser"),
    "places": lambda command, run: command.wait(lambda: any(run.glob("places/*.png"))),
    "class pictures": lambda command, run: command.wait(
        lambda: any(run.glob("class_pictures/*/*.png"))
    ),
    "steps": lambda command, run: command.wait(lambda: lines_of(run) >= 1),
    "previews": lambda command, run: command.wait(lambda: any(run.rglob("previews/*/*.png"))),
}


def lines_of(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def train_values(tmp_path: Path) -> dict[str, Any]:
    concept = {"images": str(photo(tmp_path)), "class": "dog", "masks": "auto"}
    concept |= {"scenes": {"count": 2, "each": 1}}
    concept |= {"prior": {"count": 3}}
    return {"concept": concept, "train__preview": PREVIEW, "train__steps": 4}


@pytest.fixture(scope="module")
def whole(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the adapter of the same training, not stopped."""
    folder = tmp_path_factory.mktemp("whole")
    done = tlora("train", "--config", write_recipe(tiny_sdxl, folder, **train_values(folder)))
    assert done.returncode == 0, done.stderr
    return folder / "run" / "adapter.safetensors"


@pytest.mark.full
@pytest.mark.parametrize(
    ("moment", "number", "first"),
    [
        ("imports", signal.SIGTERM, False),
        ("encoders", signal.SIGTERM, True),
        ("encoders", signal.SIGHUP, False),
        ("denoiser", signal.SIGINT, True),
        ("places", signal.SIGHUP, False),
        ("class pictures", signal.SIGTERM, False),
        ("steps", signal.SIGHUP, False),
        ("steps", signal.SIGHUP, True),
        ("steps", signal.SIGTERM, True),
        ("previews", signal.SIGTERM, False),
    ],
)
def test_training_stops_at_every_moment_and_goes_on_as_it_says(
    moment: str,
    number: signal.Signals,
    first: bool,
    tiny_sdxl: Path,
    tmp_path: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if first and not globals().get("CAN_UNSHARE"):
        pytest.skip("a namespace of processes needs root")
    monkeypatch.setenv("TLORA_CACHE", str(tmp_path / "cache"))  # places are drawn anew
    recipe = write_recipe(tiny_sdxl, tmp_path, **train_values(tmp_path))
    folder = tmp_path / "run"
    command = Process("train", "--config", recipe, first=first)
    if moment == "imports":
        time.sleep(1)
        (tmp_path / "asked").touch()
    MOMENTS[moment](command, folder)
    assert command.stop(number) == 128 + number, command.said
    assert f"stopped by {number.name}; " in command.said
    pages = folder / "report.html"
    assert not pages.exists() or "It was running when" not in pages.read_text()
    again = command_after(command.said)
    assert ("--resume" in again) == (folder / "recipe.yaml").exists()
    done = tlora(*again)
    assert done.returncode == 0, done.stderr
    assert same_tensors(folder / "adapter.safetensors", whole)


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("sample", signal.SIGTERM),
        ("evaluate", signal.SIGHUP),
        ("compare", signal.SIGTERM),
        ("convert", signal.SIGINT),
    ],
)
def test_other_commands_keep_what_there_is(
    name: str, number: signal.Signals, tiny_sdxl: Path, tmp_path: Path
) -> None:
    adapter = run(tiny_sdxl, tmp_path, train__steps=1).adapter
    out = tmp_path / "out"
    (tmp_path / "grid").mkdir()
    grid = grid_values(tiny_sdxl, tmp_path / "grid", output=str(out))
    words: dict[str, list[Any]] = {
        "sample": ["--adapter", adapter, "--prompt", "V*", "--count", 500, "--output", out],
        "evaluate": [
            *("--adapter", adapter, "--output", out, "--mask", "none", "--metric", "clip=toy-clip"),
            *("--count", 500, "--base-count", 1),
        ],
        "compare": [write_grid(tmp_path / "g.yaml", grid)],
        "convert": [adapter, "--to", "kohya", "--output", out / "k.safetensors"],
    }
    files = {"sample": "*.png", "evaluate": "**/*.png", "compare": "cells/*/run/metrics.jsonl"}
    command = Process(name, *words[name])
    if name == "convert":
        time.sleep(2)  # it imports
    else:
        command.wait(lambda: any(out.glob(files[name])))
    assert command.stop(number) == 128 + number, command.said
    assert f"stopped by {number.name}; " in command.said
    assert command_after(command.said)[0] == name
    if name == "convert":
        assert not out.exists()
    else:
        assert any(out.glob(files[name]))
    assert not list(tmp_path.rglob(".tlora-unfinished-*"))


def asked_at(
    call: int, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, list[int]]:
    """Run a command with a signal sent where a handler is changed for the call-th time.

    Returns:
        The exit status, and the signals that came to the handlers of before.
    """
    came: list[int] = []
    real, calls = signal.signal, 0

    def change(which: int, handler: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(number)  # to this thread: the runner of the tests has others
        return real(which, handler)

    monkeypatch.setattr(
        "sys.argv", ["tlora", "recipe", "show", str(ROOT / "configs/toy_sdxl.yaml")]
    )
    before = {one: real(one, lambda which, _: came.append(which)) for one in NUMBERS}
    try:
        with monkeypatch.context() as patched:
            patched.setattr(signal, "signal", change)
            status = main()
    finally:
        for one, handler in before.items():
            real(one, handler)
    assert calls >= call, "there is no such moment"
    return status, came


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("call", range(1, 7))
def test_where_handlers_change_none_gets_lost(
    call: int,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told as ever by the new handler, or comes to the one of before; nothing is raised."""
    status, came = asked_at(call, number, monkeypatch)
    if came:
        assert (status, came) == (0, [number])
    else:
        assert status == 128 + number
        assert f"stopped by {number.name}" in capsys.readouterr().err


def test_a_second_signal_leaves_the_last_words_whole(
    waiting: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = reporter.stopped

    def slowly(*words: str) -> None:
        signal.raise_signal(signal.SIGINT)
        said(*words)

    monkeypatch.setattr(reporter, "stopped", slowly)
    monkeypatch.setattr("sys.argv", ["tlora", "recipe", "show", str(waiting)])
    main_thread = threading.main_thread().ident
    soon = threading.Timer(0.5, signal.pthread_kill, (main_thread, signal.SIGTERM))
    soon.start()
    assert main() == 143
    assert capsys.readouterr().err.count("stopped by SIGTERM") == 1


@pytest.mark.parametrize("number", NUMBERS)
def test_before_a_command_begins_and_after_its_end(number: signal.Signals) -> None:
    """Where Python would show a traceback of an import, or of what it takes down."""
    program = (
        "import os, sys\n"
        "from tlora_cli.foundation.signals import end_at_once_when_asked\n"
        "assert not {'dataclasses', 'importlib.metadata', 'typer'} & set(sys.modules)\n"
        "end_at_once_when_asked()\n"
        f"os.kill(os.getpid(), {int(number)})\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 128 + number
    assert done.stderr == f"stopped by {number.name}; nothing was left half done; run it again\n"
