"""Checks of a mask that was found: never silently wrong."""

from __future__ import annotations

from collections.abc import Sequence

LEAST, MOST = 0.03, 0.90
"""Shares of the photo beyond which a mask is hardly that of a subject."""
SECOND = 1 / 3
"""A second piece of this share of the largest one is a second subject."""
MAIN = 1 / 2
"""Share of all that was found which the largest piece must have."""

EDGES = 1 / 2
"""Least share of the outline that must be an edge of the photo. Masks of subjects had .95 and more,
those of a gradient and of two plain halves 0."""


def doubt(coverage: float, pieces: Sequence[int] = (), edges: float = 1.0) -> str | None:
    """Return what is wrong with a mask, to be said after its name; None if nothing is.

    Args:
        coverage: share of the photo that it covers.
        pieces: areas of what was found, the largest first; empty if they don't matter.
        edges: share of the outline that is an edge of the photo.
    """
    if coverage < LEAST:
        if not coverage:
            return "covers nothing: no subject was found"
        return f"covers {coverage:.1%} of the photo, which is hardly a subject"
    if coverage > MOST:
        return f"covers {coverage:.0%} of the photo: the subject isn't told from its background"
    if len(pieces) > 1 and pieces[1] >= SECOND * pieces[0]:
        return "falls apart into large pieces: is there more than one subject?"
    if pieces and pieces[0] < MAIN * sum(pieces):
        return "falls apart into small pieces: no subject stands out"
    if edges < EDGES:
        return "follows no edge of the photo: no subject stands out"
    return None
