"""Files that others may read: what is written has the modes that the umask says."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training_runs import run

from tlora_cli.cli.app import main
from tlora_cli.foundation import files
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically, write_atomically, write_text


@pytest.fixture(params=[0o022, 0o027, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Set the umask of this process for a test."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {
        str(file.relative_to(folder)): stat.S_IMODE(file.stat().st_mode)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def save(file: Path) -> None:
    save_file({"a": torch.zeros(2)}, file)


def test_files_and_folders(umask: int, tmp_path: Path) -> None:
    """The library that writes tensors makes files for their owner alone."""
    write_atomically(tmp_path / "a.safetensors", save)
    write_text(tmp_path / "b.txt", "b")
    (tmp_path / "b.txt").chmod(0o600)  # what stands there is replaced, with its mode
    write_text(tmp_path / "b.txt", "c")
    with folder_atomically(tmp_path / "folder") as part:
        save(part / "c.safetensors")
        (part / "deeper").mkdir()
        save(part / "deeper" / "d.safetensors")
    found = modes(tmp_path)
    assert len(found) == 4 and set(found.values()) == {0o666 & ~umask}
    for folder in (tmp_path / "folder", tmp_path / "folder" / "deeper"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize("umask", [0o027], indirect=True, ids=oct)
def test_a_run_and_what_is_made_of_it(
    umask: int, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = run(tiny_sdxl, tmp_path, train__steps=1).adapter
    run_command = caller(monkeypatch)
    run_command("convert", adapter, "--to", "kohya", "--output", tmp_path / "run" / "k.safetensors")
    run_command("convert", adapter, "--to", "peft", "--output", tmp_path / "run" / "peft")
    found = modes(tmp_path / "run")
    assert {Path(name).suffix for name in found} >= {".safetensors", ".pt", ".yaml", ".html"}
    assert {name: oct(mode) for name, mode in found.items() if mode != 0o640} == {}


def caller(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(*words: object) -> None:
        monkeypatch.setattr("sys.argv", ["tlora", *map(str, words)])
        assert main() == 0

    return call


# --- a folder of another user ---------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("container", [True, False])
def test_a_folder_that_belongs_to_another_user(container: bool) -> None:
    """As in a container whose user is not the owner of the mounted folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "mounted"
        folder.mkdir()
        Path(name).chmod(0o755)
        os.chown(folder, 1234, 5678)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.environ.update({"container": "podman"})
                if not container:  # the tests may themselves run in one
                    files.in_container = lambda: False
                os.setuid(65534)
                write_text(folder / "deep" / "a.txt", "a")
            except UserError as error:
                remedy = "--user 1234:5678" in error.do
                named = "Permission denied" in error.what and "choose a folder" in error.do
                status = 0 if named and remedy == container else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
