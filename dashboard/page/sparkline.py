"""Sparkline: a small picture of the last hour, drawn as SVG.

Its colours are those of the style sheet: there is no style in it, which a strict
Content-Security-Policy would not allow.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, HEIGHT = 240, 48
_MARGIN = 2


def sparkline(values: Sequence[float | None], title: str) -> SafeString:
    """Return the SVG of *values*, which are spread evenly, the oldest first.

    :param values: None where nothing is known, which leaves a gap.
    :param title: what it shows, in words: for a tooltip, and for who cannot see it.
    """
    highest = max((value for value in values if value is not None), default=0.0)
    lines = format_html_join(
        "",
        '<polyline class="line" points="{}"/>',
        ((" ".join(points),) for points in _runs(values, highest)),
    )
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<title>{}</title><line class="base" x1="0" y1="{}" x2="{}" y2="{}"/>{}</svg>',
        *(WIDTH, HEIGHT, title, title, HEIGHT - 1, WIDTH, HEIGHT - 1, lines),
    )


def _runs(values: Sequence[float | None], highest: float) -> list[list[str]]:
    """Return the points of each run of values without a gap."""
    runs: list[list[str]] = [[]]
    step = WIDTH / max(1, len(values) - 1)
    room = HEIGHT - 2 * _MARGIN
    for number, value in enumerate(values):
        if value is None:
            runs.append([])
            continue
        share = value / highest if highest > 0 else 0.0
        x, y = number * step, HEIGHT - _MARGIN - share * room
        if not runs[-1]:
            runs[-1].append(f"{max(0.0, x - step / 2):.1f},{y:.1f}")  # one value is a dash
        runs[-1].append(f"{x:.1f},{y:.1f}")
    return [run for run in runs if run]
