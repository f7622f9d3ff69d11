"""Axes of the plots in HTML pages: values -> places, and ticks; `svg.jinja` draws them."""

from __future__ import annotations

import math

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
"""Colors that most people tell apart (Okabe and Ito), on light and on dark."""


class Axis:
    """Values -> places, with ticks at round values.

    Args:
        low, high: ends of the axis, low < high; above 0 if it is logarithmic.
        start, end: their places.
        log: logarithmic.
        whole: values are whole numbers, and so are ticks.
    """

    def __init__(
        self,
        low: float,
        high: float,
        start: float,
        end: float,
        *,
        log: bool = False,
        whole: bool = False,
    ) -> None:
        self.start, self.end = start, end
        self._low, self._high, self._log, self._whole = low, high, log, whole

    def __call__(self, value: float) -> float:
        """Return the place of a value; beyond an end, that end."""
        low, high = self._scaled(self._low), self._scaled(self._high)
        share = (self._scaled(max(value, self._low)) - low) / (high - low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else value

    def ticks(self) -> list[tuple[float, str]]:
        """Return about five round values and how they are written."""
        if self._log and len(logarithmic := self._decades()) >= 2:
            return logarithmic
        span = self._high - self._low
        unit = 10.0 ** math.floor(math.log10(span / 4))
        step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= 6)
        if self._whole:
            step = max(1.0, step)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(self._low / step)
        last = math.floor(self._high / step)
        return [(n * step, f"{n * step:.{digits}f}") for n in range(first, last + 1)]

    def _decades(self) -> list[tuple[float, str]]:
        """Return 1, 2, 5 of each power of ten; of many, the powers alone."""
        first, last = (math.floor(math.log10(end)) for end in (self._low, self._high))
        inside: list[float] = []
        for digits in ((1, 2, 5), (1,)):
            values = (d * 10.0**power for power in range(first, last + 1) for d in digits)
            inside = [value for value in values if self._low <= value <= self._high]
            if len(inside) <= 7:
                break
        return [(value, f"{value:g}") for value in inside]
