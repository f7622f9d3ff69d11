"""The one exception users see: what is wrong, where, and what to do."""

from __future__ import annotations


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
