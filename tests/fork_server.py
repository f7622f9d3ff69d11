"""Runs the command line in forks of a process that has imported it: seconds saved a call.

`tests/training_runs.py` sends a call here if it differs from the tests' own environment in nothing
that is read while modules are imported; any other call gets an interpreter of its own. A fork has
the arguments, the folder, the environment and the streams of its call, and ends as a process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tlora_cli.cli.quiet import HUSHED, hush_libraries

ROOT = Path(__file__).resolve().parents[1]
FREE = ("TLORA_", "PYTEST_", "LD_LIBRARY_PATH", "TORCHINDUCTOR_CACHE_DIR")
"""Beginnings of variables that no module reads when it is imported. OpenCV and torch set the last
two themselves while a test imports them; a process that runs reads neither again."""
MODULES = (
    "tlora_cli.cli.commands",
    "tlora_cli.training.loop",
    "tlora_cli.sampling.sample",
    "tlora_cli.evaluation.run",
    "tlora_cli.tools.merge",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
    "diffusers.pipelines.flux.pipeline_flux",
    "transformers.models.clip.modeling_clip",
    "transformers.models.t5.modeling_t5",
    "accelerate",
)
ENVIRONMENT = dict(os.environ)
"""The variables of the tests before one of them changes any."""
START = 120
"""Seconds that the imports may take."""


# --- the tests' side ------------------------------------------------------------------------------


class ForkServer:
    """A process that forks; started at the first call, ended with the tests.

    Args:
        path: where it finds modules, as PYTHONPATH has it.
        pretend: whether the device of `pretend_device.py` is its accelerator.
    """

    def __init__(self, path: str = str(ROOT), pretend: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = str(Path(self._folder.name) / "calls")
        self._environment = {**ENVIRONMENT, "PYTHONPATH": path}
        command = [sys.executable, __file__, self._path, *(["pretend"] if pretend else [])]
        self._process = subprocess.Popen(command, cwd=ROOT, env=self._environment)
        atexit.register(self.end)

    def takes(self, environment: Mapping[str, str]) -> bool:
        """Whether a call with this environment is the same in a fork.

        The server has hushed its libraries; a test that calls `hush_libraries` leaves them so.
        """
        asked, own = {**HUSHED, **environment}, {**HUSHED, **self._environment}
        differing = [n for n in {*asked, *own} if asked.get(n) != own.get(n)]
        debugged = asked.get("TLORA_DEBUG") == "1"  # it lets the libraries talk
        return not debugged and all(name.startswith(FREE) for name in differing)

    def run(
        self, arguments: Sequence[str], cwd: str, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line, as `subprocess.run` would with its output captured as text."""
        return self.start(arguments, cwd, environment).ended(timeout)

    def start(
        self,
        arguments: Sequence[str],
        cwd: str,
        environment: Mapping[str, str],
        program: str | None = None,
    ) -> Call:
        """Start the command line and return while it works.

        Args:
            arguments: the words after `tlora`.
            cwd: its folder.
            environment: its variables; `takes` says which can be.
            program: Python code that is run in place of the command line.
        """
        call = {"arguments": list(arguments), "cwd": cwd, "environment": dict(environment)}
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        line = self._connected()
        with Path(os.devnull).open("rb") as nothing:
            socket.send_fds(line, [b"call"], [nothing.fileno(), out.fileno(), err.fileno()])
        line.sendall(json.dumps({**call, "program": program}).encode() + b"\n")
        return Call(["tlora", *arguments], line, out, err)

    def _connected(self) -> socket.socket:
        end = time.monotonic() + START
        while True:
            line = socket.socket(socket.AF_UNIX)
            try:
                line.connect(self._path)
            except OSError:
                line.close()
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("the fork server of the tests did not start") from None
                time.sleep(0.02)
            else:
                return line

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


class Call:
    """A call that works, or has ended.

    Args:
        words: of the command.
        line: to the server, which says the call's process and its status.
        out: what it prints.
        err: likewise, as errors.
    """

    def __init__(
        self, words: list[str], line: socket.socket, out: IO[bytes], err: IO[bytes]
    ) -> None:
        self._words, self._line, self._streams = words, line, (out, err)
        self._answers = line.makefile("r")
        self.pid = int(self._answers.readline())

    def works(self) -> bool:
        """Whether it has not ended."""
        return not select.select([self._line], [], [], 0)[0]

    def send_signal(self, number: int) -> None:
        """Send a signal to its process."""
        os.kill(self.pid, number)

    def ended(self, timeout: float) -> subprocess.CompletedProcess[str]:
        """Wait for its end; it is killed after so many seconds."""
        if not select.select([self._line], [], [], timeout)[0]:
            os.kill(self.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(self._words, timeout)
        status = int(self._answers.readline())
        texts = []
        for stream in self._streams:
            stream.seek(0)
            texts.append(stream.read().decode().replace("\r\n", "\n"))
            stream.close()
        self._answers.close()
        self._line.close()
        return subprocess.CompletedProcess(self._words, status, *texts)


# --- the server's side ----------------------------------------------------------------------------


def serve(path: str, pretend: bool = False) -> None:
    """Import, then fork for each call, until killed or until the tests are gone."""
    import importlib

    hush_libraries()
    if pretend:  # before modules take what they use from each other
        importlib.import_module("pretend_device").install()
    for name in MODULES:
        importlib.import_module(name)
    parent = os.getppid()
    calls = socket.socket(socket.AF_UNIX)
    calls.bind(f"{path}.new")
    calls.listen()
    Path(f"{path}.new").rename(path)
    calls.settimeout(1)
    while os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            line, _ = calls.accept()
            if os.fork() == 0:
                calls.close()
                _answer(line)
            line.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _answer(line: socket.socket) -> None:
    """Run a call in a fork, and say its process and its status; does not return."""
    line.setblocking(True)
    _, fds, _, _ = socket.recv_fds(line, 4, 3)
    call = json.loads(line.makefile("r").readline())
    process = os.fork()
    if process == 0:
        line.close()
        _call(call, fds)
    line.sendall(f"{process}\n".encode())
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(BrokenPipeError):
        line.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _call(call: dict[str, Any], fds: Sequence[int]) -> None:
    """Run the command line; does not return."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
    os.chdir(call["cwd"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.path[0] = call["cwd"]
    sys.argv = [str(ROOT / "tlora_cli" / "__main__.py"), *call["arguments"]]
    status = 1
    try:
        if call["program"] is not None:
            exec(call["program"], {"__name__": "__main__"})
            status = 0
        else:
            from tlora_cli.__main__ import main

            status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # as an interpreter does at its end
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:] == ["pretend"])
