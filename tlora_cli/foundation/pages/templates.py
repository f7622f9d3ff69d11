"""Templates -> pages: every value is escaped, and a name that has no value is an error.

A template is named by its path in this package, such as `comparison/page.html.jinja`. Pages extend
`foundation/pages/base.html.jinja` and use the macros of `parts.html.jinja` and `svg.jinja` there.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
MOST_FRAMES = 14
"""Most frames of a slider (`steps` of `parts.html.jinja`)."""

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


def chosen_frames(
    steps: Sequence[int], keep: Collection[int] = (), most: int = MOST_FRAMES
) -> list[int]:
    """Return the steps that a slider shows: all, or the first, the last, and some evenly between.

    Args:
        steps: rising.
        keep: of these, such as the best one; they are always shown.
        most: to show, at least 2.
    """
    if len(steps) <= most:
        return list(steps)
    kept = {steps[0], steps[-1], *(one for one in steps if one in keep)}
    free = [one for one in steps if one not in kept]
    count = max(0, most - len(kept))
    even = {free[number * len(free) // count] for number in range(count)}
    return sorted(kept | even)


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
    environment.globals["MOST_FRAMES"] = MOST_FRAMES
    environment.filters["style_hashes"] = _style_hashes
    environment.filters["place"] = _place
    environment.filters["places"] = _places
    return environment


def _style_hashes(html: str) -> Markup:
    """Return the sources by which a Content-Security-Policy takes the style elements in HTML."""
    from markupsafe import Markup

    digests = (hashlib.sha256(one.encode()).digest() for one in _STYLE.findall(html))
    sources = (f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return Markup(" ".join(sources))


def _place(value: float) -> str:
    """Return a coordinate as it is written in an SVG."""
    return f"{value:.1f}"


def _places(points: Iterable[tuple[float, float]]) -> str:
    """Return the points of a polyline."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
