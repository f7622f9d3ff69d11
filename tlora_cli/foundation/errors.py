"""The one exception users see: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake the user can mend. The command line prints it and exits with status 2.

    Args:
        what: one sentence: what is wrong, naming the thing.
        where: the file, key or line it concerns; empty if `what` says it.
        do: the remedy, in the imperative.
    """

    def __init__(self, what: str, where: str = "", do: str = "") -> None:
        super().__init__(what, where, do)
        self.what = what
        self.where = where
        self.do = do

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
