"""A command of `tlora`: what all of them have, beside what each does.

`--quiet` and `--log-level`, and `--json` where a command prints objects; help in words; paths with
what stands for others filled in; options that are given twice told.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tlora_cli.cli.choices import check_name, completing, either
from tlora_cli.cli.once import Once
from tlora_cli.cli.reporter import LEVELS, begin, reporter
from tlora_cli.foundation.errors import UserError

Function = Callable[..., None]
Objects = Annotated[
    bool, typer.Option("--json", help="Print objects for programs, one a line; docs/json.md.")
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say results, warnings and errors alone.")
]
LogLevel = Annotated[
    str,
    typer.Option(
        "--log-level",
        help=f"Least that is said: {either(LEVELS)}.",
        autocompletion=completing(LEVELS),
    ),
]
_SHARED: dict[str, tuple[Any, Any]] = {
    "objects": (Objects, False),
    "quiet": (Quiet, False),
    "log_level": (LogLevel, "info"),
}
"""Parameter that commands share -> its type and default. `Command` acts on them; no function of a
command gets them."""
_WORDS = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "Path": "PATH"}


def shared(function: Function, prints_objects: bool = False) -> Function:
    """Return a command's function as typer shall see it: with the options that all share.

    Args:
        function: of the command.
        prints_objects: whether it has `--json`, with events of its own.
    """
    own = inspect.signature(function, eval_str=True)
    names = [name for name in _SHARED if prints_objects or name != "objects"]
    more = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_SHARED[name][1],
            annotation=_SHARED[name][0],
        )
        for name in names
    ]

    @functools.wraps(function)
    def run(**given: Any) -> None:
        function(**{name: value for name, value in given.items() if name not in _SHARED})

    signature = own.replace(parameters=[*own.parameters.values(), *more])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
    return run


class Command(Once):
    """A command that says all through the reporter, and whose help has words for types."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        for one in self.params:
            _in_words(one)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and set the reporter as they say."""
        path: str = ctx.command_path
        name = path.partition(" ")[2]
        own = [one.name for one in self.params if one.name in _SHARED]
        # Before the rest is parsed, for what may be wrong with it.
        begin(name, "objects" in own and "--json" in args)
        try:
            rest = super().parse_args(ctx, args)
        except Exception as error:
            message = getattr(error, "format_message", None)
            if message is None or not reporter.as_json:
                raise
            raise UserError(str(message()), do=f"see {path} --help") from error
        given = {key: ctx.params[key] for key in own}
        level = given["log_level"]
        check_name("--log-level", level, LEVELS)
        if given["quiet"] and level == "info":
            level = "warning"
        if level == "debug":
            os.environ["TLORA_DEBUG"] = "1"  # which processes that the command starts inherit
        begin(name, given.get("objects", False), level)
        return rest


def _in_words(parameter: Any) -> None:
    """Have help name the kind of value as people do; typer shows Python's types, as `list[str]`."""
    descriptor = getattr(parameter, "type_descriptor", None)
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name.upper()).removesuffix("...")
        parameter.metavar = name
        shown = name if parameter.required else f"[{name}]"
        shown += "..." if parameter.nargs != 1 else ""
        parameter.get_usage_pieces = lambda ctx: [shown]
        parameter.display_type_rich = lambda ctx: ""
    elif parameter.metavar is None and descriptor is not None:
        bare = str(parameter.bare_type()).removeprefix("list[").removesuffix("]")
        parameter.metavar = _WORDS.get(bare)
