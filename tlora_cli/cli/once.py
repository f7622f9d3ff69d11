"""A command as people write it: options given twice are told, and paths filled in."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.foundation.variables import filled_path


class Once(TyperCommand):
    """Takes the last value of such an option, as command lines do, and doesn't hide it.

    Paths have ~ and variables filled in: a shell does so in `--output ~/runs`, and most don't in
    `--output=~/runs`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, after a warning for each option whose first value is dropped."""
        if not ctx.resilient_parsing:  # not while a shell completes
            for option in self._given_twice(ctx, args):
                print(f"warning: {option} is given twice; the last counts", file=sys.stderr)
        rest = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            ctx.params[name] = filled(name, value)
        return rest

    def _given_twice(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
        except Exception:  # a wrong option, which is told in the usual way
            return []
        single = [
            one.opts[0]
            for one in order
            if one.param_type_name == "option"
            and not (getattr(one, "multiple", False) or getattr(one, "is_flag", False))
        ]
        return [option for option, times in Counter(single).items() if times > 1]


def filled(name: str, value: Any) -> Any:
    """Return a path, or paths, with what stands for others filled in; anything else as it is."""
    if isinstance(value, list | tuple):
        return type(value)(filled(name, one) for one in value)
    if not isinstance(value, Path):
        return value
    try:
        return expanded(filled_path(str(value)))
    except ValueError as error:
        raise UserError(
            str(error).partition("; ")[0], f"--{name}".replace("_", "-"), "write the whole path"
        ) from error
