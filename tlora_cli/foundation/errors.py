"""The one exception users see: what is wrong, where, and what to do; and the exit statuses."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from enum import IntEnum


class Status(IntEnum):
    """The exit statuses, the same in every command: each says what can be done about an end.

    docs/service.md has them as a table, and a test holds the two together.
    """

    DONE = 0
    """All is done."""
    FAULT = 1
    """A fault of the program, or parts of the work failed and the rest is done."""
    MISTAKE = 2
    """The command, the recipe or a file that they name has to be changed."""
    MISSING = 3
    """A model, a permission, a package or a device has to be got first."""
    LATER = 4
    """The network, the Hub, a cluster or a folder can't be used now: the same again, later."""
    NO_ROOM = 5
    """Memory or disk does not suffice."""
    HUNG_UP = 129
    """SIGHUP; what there was is saved."""
    INTERRUPTED = 130
    """SIGINT, as Ctrl-C sends it; likewise."""
    TERMINATED = 143
    """SIGTERM; likewise."""

    @property
    def word(self) -> str:
        """The name as it is printed for programs."""
        return self.name.lower().replace("_", " ")


class UserError(Exception):
    """A mistake the user can mend. The command line prints it and exits with the status of `kind`.

    Args:
        what: one sentence: what is wrong, naming the thing.
        where: the file, key or line it concerns; empty if `what` says it.
        do: the remedy, in the imperative.
        kind: the exit status, which says what kind of remedy there is; 2 for a mistake in what was
            written.
    """

    def __init__(
        self, what: str, where: str = "", do: str = "", kind: Status = Status.MISTAKE
    ) -> None:
        super().__init__(what, where, do, kind)
        self.what = what
        self.where = where
        self.do = do
        self.kind = kind

    def __str__(self) -> str:
        """Return the message as printed: one line each for what, where and remedy."""
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.do:
            lines.append(f"  fix:   {self.do}")
        return "\n".join(lines)


def known_names(given: str, known: Iterable[str]) -> str:
    """Return the remedy for an unknown name: the one that may be meant, and all known ones."""
    names = list(known)
    if not names:
        return "there are none"
    close = get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}known: {', '.join(names)}"


def system_reason(error: OSError) -> str:
    """Return why the system refused, in its words; some errors have none, and say it otherwise."""
    return error.strerror or str(error) or type(error).__name__


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the system's errors that mean a full disk."""
FREE_SPACE = "free disk space, then run the same command again"
_FREE_MEMORY = "close other programs, or ask for less: a smaller size, batch or model"
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
"""Parts of what torch and the system say when memory is short, as RuntimeError or OSError."""


def no_room(error: BaseException) -> UserError | None:
    """Return what to tell of a failure for want of memory or disk; None if it is another one."""
    if isinstance(error, OSError) and error.errno in FULL:
        return UserError(
            f"the disk is full: {system_reason(error)}",
            where=str(error.filename or ""),
            do=FREE_SPACE,
            kind=Status.NO_ROOM,
        )
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
        return UserError("the GPU ran out of memory", do=_FREE_MEMORY, kind=Status.NO_ROOM)
    spoken = isinstance(error, RuntimeError | OSError) and any(
        part in str(error) for part in _NO_MEMORY
    )
    if isinstance(error, MemoryError) or spoken:
        return UserError("the machine ran out of memory", do=_FREE_MEMORY, kind=Status.NO_ROOM)
    return None
