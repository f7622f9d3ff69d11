"""The words of a scene: the concept's prompt, the place, and the side."""

from __future__ import annotations

LEFT, RIGHT = 0.4, 0.6
"""Middles of a subject, from 0 to 1, beyond which a caption names the side."""


def scene_caption(prompt: str, place: str, middle: float) -> str:
    """Return "a photo of sks dog, in the snow, on the left".

    Args:
        prompt: with the concept's words.
        place: its words.
        middle: of the subject, from 0 (left) to 1 (right).
    """
    side = "on the left" if middle < LEFT else "on the right" if middle > RIGHT else ""
    return ", ".join(part for part in (prompt, place, side) if part)
