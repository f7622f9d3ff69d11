"""Files that are whole or absent: atomic writes, disk space, folder locks."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import lock_descriptor
from safetensors import SafetensorError

from tlora_cli.foundation.errors import FREE_SPACE, FULL, Status, UserError, system_reason

TEMPORARY = ".tlora-unfinished-"
"""Prefix of unfinished files and folders; such names are never read."""
LOCK = ".lock"
"""File by which a process holds a folder."""
GLANCE = 0.02
"""Seconds that are more than another process takes to look whether a folder is held."""


def temporary_beside(path: Path) -> Path:
    """Return the temporary name for `path`, in the same folder so that renaming is atomic."""
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, sync it, and rename it to `path`.

    A crash at any moment leaves the old file or the new one, never a part. Who may read it is what
    the umask, or the folder's own rules, say of new files, whatever `write` made of it.

    Raises:
        UserError: if the disk is full or the folder can't be written.
    """
    temporary = temporary_beside(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            mode = _mode_of_new(temporary)
            write(temporary)
            _set_mode(temporary, mode)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an exception.

    Its files may be read by those who may read new files there, as in `write_atomically`.
    """
    temporary = temporary_beside(path)
    with explained(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            probe = temporary / TEMPORARY
            mode = _mode_of_new(probe)
            probe.unlink()
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    _set_mode(file, mode)
                sync(file)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _mode_of_new(file: Path) -> int:
    """Create an empty file and return its permissions: the umask can't be asked without a risk."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _set_mode(file: Path, mode: int) -> None:
    """Set permissions; safetensors makes files that only their owner can read."""
    if stat.S_IMODE(file.stat().st_mode) != mode:
        with suppress(PermissionError):  # a disk without permissions, as of Windows or a camera
            file.chmod(mode)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a crash half-way leaves nothing that looks whole."""
    doomed = temporary_beside(path)
    path.replace(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left unfinished in `folder`."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def sync(path: Path) -> None:
    """Force a file's or a folder's contents to the disk; Windows keeps folders by itself."""
    if os.name == "nt":
        if path.is_dir():
            return
        descriptor = os.open(path, os.O_RDWR)
    else:
        descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into a UserError."""
    try:
        yield
    except OSError as error:
        raise _refused(path, error.errno, system_reason(error)) from error
    except SafetensorError as error:
        # safetensors wraps the system's error in a text: "I/O error: ... (os error 28)".
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise _refused(path, int(number[1]), os.strerror(int(number[1]))) from error
    except RuntimeError as error:
        # torch.save's archive says no more than that it is not as long as it should be.
        if _ARCHIVE not in str(error):
            raise
        full = free_space(existing_parent(path)) < _FULL
        reason = os.strerror(errno.ENOSPC) if full else "it was cut off"
        raise _refused(path, errno.ENOSPC if full else None, reason) from error


_ARCHIVE = "inline_container"
"""The part of torch that writes archives, as its messages name it."""
_FULL = 2**20
"""Free bytes under which a disk counts as full."""


def _refused(path: Path, number: int | None, reason: str) -> UserError:
    remedies = {
        **dict.fromkeys(FULL, FREE_SPACE),
        errno.EROFS: "choose a folder on a disk that can be written",
        errno.EACCES: _permitted(path),
        errno.EPERM: _permitted(path),
    }
    return UserError(
        f"cannot write {path.name}: {reason}",
        where=str(path),
        do=remedies.get(number or 0, "check the disk and the folder"),
        kind=Status.NO_ROOM if number in FULL else Status.MISTAKE,
    )


def _permitted(path: Path) -> str:
    """Return what to do where this user may not write."""
    do = "choose a folder you may write to"
    if not in_container():
        return do
    try:
        owner = existing_parent(path.parent).stat()
    except OSError:  # a folder that may not even be looked into
        return do
    return f"run the container as the folder's owner: --user {owner.st_uid}:{owner.st_gid}; or {do}"


def expanded(name: str | Path) -> Path:
    """Return a path to read, with `~` filled in; as it stands where no such home is known."""
    path = Path(name)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def writable(name: str | Path) -> Path:
    """Return a path to write, with `~` filled in.

    Raises:
        UserError: if no such home is known: `~jon/runs` must not become a folder called `~jon`.
    """
    path = expanded(name)
    home = path.parts[0] if path.parts else ""
    if home == "~":
        raise UserError("the home folder is not known here", str(name), "set HOME")
    if home.startswith("~") and not Path(home).exists():
        raise UserError(f"{home} is the home of nobody here", str(name), "write the whole path")
    return path


def is_regular(path: Path) -> bool:
    """Return whether there is a file that can be read: no folder, no pipe, and a possible name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def in_container() -> bool:
    """Return whether this runs in a container, by the marks of Docker, Podman and others."""
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return "container" in os.environ or any(mark.exists() for mark in marks)


def existing_parent(path: Path) -> Path:
    """Return the path, or what of it is there."""
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


def free_space(folder: Path) -> int:
    """Return the free bytes of the disk where `folder` is, or would be."""
    return shutil.disk_usage(existing_parent(folder)).free


def require_space(folder: Path, needed: int, what: str, do: str = FREE_SPACE) -> None:
    """Raise a UserError, whose remedy is `do`, unless `folder`'s disk has `needed` bytes free."""
    free = free_space(folder)
    if free < needed:
        raise UserError(
            f"not enough disk space for {what}: {needed / 1e6:.0f} MB needed, "
            f"{free / 1e6:.0f} MB free",
            where=str(folder),
            do=do,
            kind=Status.NO_ROOM,
        )


def require_free(folder: Path) -> None:
    """Raise a UserError if a process works in `folder`; nothing is written."""
    if is_locked(folder):
        raise _in_use(folder)


def _in_use(folder: Path) -> UserError:
    return UserError(
        "another tlora run is working in this folder",
        where=str(folder),
        do="wait for it to end, or choose another output.dir",
        kind=Status.LATER,
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; a second run in it is refused. Released by any exit."""
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    with lock:
        with explained(folder):
            free = lock_descriptor(lock.fileno(), blocking=False)
        if not free:
            raise _in_use(folder)
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds `folder`, this one included; nothing is written."""
    try:
        lock = (folder / LOCK).open()
    except (FileNotFoundError, NotADirectoryError):
        return False
    with lock:
        # Looking takes the lock for a moment, and another may be looking at this very moment.
        if lock_descriptor(lock.fileno(), blocking=False):
            return False
        time.sleep(GLANCE)
        return not lock_descriptor(lock.fileno(), blocking=False)
