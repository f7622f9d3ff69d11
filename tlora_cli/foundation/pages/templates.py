"""Templates -> pages: every value is escaped, and a name that has no value is an error.

A template is named by its path in this package, such as `comparison/page.html.jinja`. Pages extend
`foundation/pages/base.html.jinja` and use the macros of `parts.html.jinja` and `svg.jinja` there.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

NOTHING = "\N{EN DASH}"
"""Text of a cell that has no value."""


def render(template: str, **values: object) -> str:
    """Return a whole page.

    Raises:
        jinja2.TemplateError: if the template needs a value that isn't given.
    """
    return _environment().get_template(template).render(values)


def part(template: str, macro: str, **values: object) -> str:
    """Return what a macro makes. It is marked as HTML, so another template takes it as it is.

    Raises:
        jinja2.TemplateError: if the macro needs a value that isn't given.
        TypeError: if it doesn't know one of the values.
    """
    made: str = getattr(_environment().get_template(template).module, macro)(**values)
    return made


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("tlora_cli", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["place"] = _place
    environment.filters["places"] = _places
    return environment


def _place(value: float) -> str:
    """Return a coordinate as it is written in an SVG."""
    return f"{value:.1f}"


def _places(points: Iterable[tuple[float, float]]) -> str:
    """Return the points of a polyline."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
