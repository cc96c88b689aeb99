"""Measure everything that docs/benchmarks.md and README.md show, and write it into them.

    python benchmarks/figures.py            about half an hour, on a machine that does nothing else
    python benchmarks/figures.py --quick    a trial of a minute or two; write into copies
    python benchmarks/figures.py --write    write docs/figures.json into the pages again

No figure in these pages is typed by hand: what is between `<!-- figures:NAME -->` and
`<!-- figures:end -->` is replaced. The results are kept in docs/figures.json, and the picture in
docs/_static/throughput.svg.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bouncer
import common
import throughput_picture as picture
from figure_tables import BLOCKS, Results

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/benchmarks.md")
RESULTS, PICTURE = "docs/figures.json", "docs/_static/throughput.svg"
BLOCK = re.compile(
    r"(?P<begin><!-- figures:(?P<name>\w+) -->\n).*?(?P<end><!-- figures:end -->)", re.DOTALL
)
#: Benchmark -> its arguments, and those of a trial.
BENCHMARKS = {
    "statement": (["--workload", "select1"], ["--rounds", "4", "--times", "10"]),
    "holders": (["--rounds", "80", "--times", "100"], ["--rounds", "4", "--times", "10"]),
    "simple_query": ([], ["--rounds", "2", "--seconds", "0.01"]),
    "classifier": ([], ["--rounds", "3"]),
    "throughput": (
        ["--threads", "8", "16", "32", "64", "128", "256", "--seconds", "4"],
        ["--threads", "32", "128", "--seconds", "0.5", "--repeats", "1", "--patience", "0"],
    ),
    "demo": ([], ["--seconds", "1"]),
}


def measure(quick: bool) -> dict[str, Any]:
    """Run the benchmarks; return their results.

    :raises SystemExit: what they compare with is not all installed, or a benchmark fails.
    """
    if common.DSN in os.environ:
        raise SystemExit(f"Unset {common.DSN}: all figures are to be from one server.")
    missing = {how for engine in common.ENGINES if (how := common.missing(engine)) is not None}
    if missing:
        raise SystemExit(f"Install what relet is compared with: {'; '.join(sorted(missing))}")
    if bouncer.program() is None and not quick:
        raise SystemExit("Install PgBouncer: apt-get install pgbouncer")
    results: dict[str, Any] = {
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}",
        "pgbouncer": bouncer.version(),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (usual, trial) in BENCHMARKS.items():
            file = Path(folder, f"{name}.json")
            script = (
                ["-m", "relet.backends.cli", "demo"]
                if name == "demo"
                else [str(Path(__file__).with_name(f"{name}.py"))]
            )
            arguments = trial if quick else usual
            print(f"\n== {name} {' '.join(arguments)}", flush=True)
            command = [sys.executable, *script, *arguments, "--json", str(file)]
            if subprocess.run(command, cwd=ROOT).returncode != 0:
                raise SystemExit(f"{name} failed; nothing is written.")
            results[name] = json.loads(file.read_text())
    return results


def filled(text: str, results: Results) -> str:
    """Return *text*, a page, with *results* in its blocks.

    :raises KeyError: there is no block of that name, or its benchmark is not in *results*.
    """

    def fill(match: re.Match[str]) -> str:
        return f"{match['begin']}\n{BLOCKS[match['name']](results)}\n\n{match['end']}"

    return BLOCK.sub(fill, text)


def write(results: Results, target: Path) -> None:
    """Write the pages, with *results* in them, the results and the picture below *target*."""
    for page in PAGES:
        text = filled((ROOT / page).read_text(encoding="utf-8"), results)
        (target / page).parent.mkdir(parents=True, exist_ok=True)
        (target / page).write_text(text, encoding="utf-8")
    (target / RESULTS).write_text(json.dumps(slim(results), indent=1) + "\n")
    picture.draw(results["throughput"], target / PICTURE)
    print(f"\nwritten: {', '.join(map(str, (*PAGES, RESULTS, PICTURE)))}, in {target}")


def slim(value: Any) -> Any:
    """Return *value* without the single runs, which only the medians were made from."""
    if isinstance(value, dict):
        return {name: slim(each) for name, each in value.items() if name != "runs"}
    return [slim(each) for each in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a trial; its figures mean nothing")
    parser.add_argument("--write", action="store_true", help="measure nothing")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="where to write; default: the repository, and for a trial a temporary folder",
    )
    options = parser.parse_args()
    if told := picture.missing():
        parser.error(f"the picture needs matplotlib: {told}")
    known = json.loads((ROOT / RESULTS).read_text()) if options.write else None
    results = known or measure(options.quick)
    target = options.into or (Path(tempfile.mkdtemp()) if options.quick else ROOT)
    write(results, target)


if __name__ == "__main__":
    main()
