"""A command that says so when an option that holds one value is given twice."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from typer.core import TyperCommand


class Once(TyperCommand):
    """Takes the last value of such an option, as command lines do, and doesn't hide it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, after a warning for each option whose first value is dropped."""
        if not ctx.resilient_parsing:  # not while a shell completes
            for option in self._given_twice(ctx, args):
                print(f"warning: {option} is given twice; the last counts", file=sys.stderr)
        return super().parse_args(ctx, args)

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
