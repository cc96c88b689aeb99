"""Draw requests/s over threads from the JSON file of `throughput`: a picture for each load beside.

python benchmarks/throughput_picture.py FILE.json FILE.svg
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: Engine -> (label, colour, marker, dashes). The colours can be read on white and on black; who
#: cannot tell them apart has the markers.
STYLES = {
    "held": ("a connection for each thread", "#808080", "s", (4, 2)),
    "PgBouncer": ("PgBouncer, transaction mode", "#d97706", "v", (4, 2)),
    "native": ("Django's native pool", "#e04848", "X", (1, 1)),
    "django-pg-real-pool": ("django-pg-real-pool", "#b5843c", "P", (1, 1)),
    "relet": ("relet on psycopg_pool", "#2f81f7", "o", ()),
    "relet/sqlalchemy": ("relet on SQLAlchemy", "#1a9c84", "D", ()),
    "relet/dj_db_conn_pool": ("relet on django-db-connection-pool", "#9065e0", "^", ()),
    "relet/pg8000": ("relet on pg8000", "#d453a1", "d", ()),
}
#: Of text and lines that are no engine's: readable on white and on black.
GREY = "#808890"
COLUMNS = 3


def missing() -> str | None:
    """Return how to install what draws, or None if it is installed."""
    return None if find_spec("matplotlib") else "pip install matplotlib"


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw *results*, as `throughput` writes them, into the SVG file *path*."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = panels_of(results["loads"])
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    style: Any = {
        # Text stays text, and the same figures make the same file.
        "svg.fonttype": "none",
        "svg.hashsalt": "throughput",
        "font.size": 10,
        "text.color": GREY,
        "axes.edgecolor": GREY,
        "axes.labelcolor": GREY,
        "axes.titlecolor": GREY,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": GREY,
        "grid.alpha": 0.25,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(max(5.5, 3.6 * columns), 3 * rows + 1.2), layout="constrained")
        figure.suptitle(
            f"Requests per second of many threads; pools of {results['connections']} connections",
            fontsize=13,
        )
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        lines: dict[str, Any] = {}
        for (title, engines), panel in zip(panels.items(), axes, strict=False):
            draw_panel(panel, title, engines, lines)
        for spare in axes[len(panels) :]:
            spare.set_axis_off()
        figure.legend(lines.values(), lines, loc="outside lower center", ncols=columns + 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
    print(f"drawn: {path}")


def panels_of(loads: list[dict[str, Any]]) -> dict[str, dict[str, dict[int, float]]]:
    """Return title -> engine -> threads -> requests/s."""
    several = {load["processes"] for load in loads} != {1}
    panels: dict[str, dict[str, dict[int, float]]] = {}
    for load in loads:
        title = f"{load['elsewhere_ms']:g} ms elsewhere"
        if several:
            title += f", {load['processes']} process{'es' if load['processes'] > 1 else ''}"
        panel = panels.setdefault(title, {})
        for name, figures in load["engines"].items():
            panel.setdefault(name, {})[load["threads"]] = figures["requests_per_s"]
    return panels


def draw_panel(
    panel: Any, title: str, engines: dict[str, dict[int, float]], lines: dict[str, Any]
) -> None:
    """Draw the *engines* into *panel*; put a line of each into *lines*, by its label."""
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    for name, rates in engines.items():
        label, colour, marker, dashes = STYLES.get(name, (name, GREY, ".", (1, 1)))
        (line,) = panel.plot(
            list(rates),
            list(rates.values()),
            color=colour,
            marker=marker,
            markersize=5,
            label=label,
        )
        if dashes:
            line.set_dashes(dashes)
        lines[label] = line
    ticks = sorted({threads for rates in engines.values() for threads in rates})
    panel.set_title(title)
    panel.set_xscale("log", base=2)
    panel.set_xticks(ticks, [str(threads) for threads in ticks])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("threads")
    panel.set_ylabel("requests/s")
    panel.set_ylim(bottom=0)
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path, help="what throughput.py --json has written")
    parser.add_argument("svg", type=Path, help="the file to write")
    options = parser.parse_args()
    if told := missing():
        parser.error(f"matplotlib is not installed: {told}")
    draw(json.loads(options.results.read_text()), options.svg)


if __name__ == "__main__":
    main()
