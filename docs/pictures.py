"""Take pictures of three pages of the built site: light, dark, and on a phone.

python docs/pictures.py docs/_build/html docs/_build/pictures

They are for a look before a release; nothing compares them. Needs Chromium, and says so if there is
none. It fails only if a page is wider than its window.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
#: Page and window: width and height, in CSS pixels, and the theme.
WINDOWS = {
    "index": (1280, 1600, "light"),
    "settings": (1280, 1600, "dark"),
    "session-state": (500, 1400, "light"),
}
#: Put into a copy of the page: it chooses the theme and tells how wide the page is.
SCRIPT = """<script>
localStorage.setItem("theme", "{theme}");
document.addEventListener("DOMContentLoaded", () => {{ document.body.dataset.theme = "{theme}"; }});
addEventListener("load", () => {{
  const wide = [...document.querySelectorAll("article table")].filter(
    (table) => table.scrollWidth > table.closest("article").clientWidth + 1);
  document.documentElement.dataset.wide = wide.length;
  document.documentElement.dataset.over = document.documentElement.scrollWidth - innerWidth;
}});
</script></head>"""


def browser() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def take(chromium: str, site: Path, page: str, target: Path) -> list[str]:
    """Write a picture of *page*; return what is too wide on it."""
    width, height, theme = WINDOWS[page]
    html = (site / f"{page}.html").read_text(encoding="utf-8")
    copy = site / f"_picture-{page}.html"
    copy.write_text(html.replace("</head>", SCRIPT.format(theme=theme), 1), encoding="utf-8")
    try:
        with tempfile.TemporaryDirectory() as profile:
            command = [
                *(chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *(f"--user-data-dir={profile}", f"--window-size={width},{height}"),
                "--virtual-time-budget=3000",
            ]
            run([*command, f"--screenshot={target}", copy.as_uri()])
            document = run([*command, "--dump-dom", copy.as_uri()])
    finally:
        copy.unlink()
    found = {
        name: int(number) for name, number in re.findall(r'data-(wide|over)="(-?\d+)"', document)
    }
    if "wide" not in found:
        return [f"{page}: the page did not load"]
    return [f"{page}: {name} {found[name]}" for name in found if found[name] > 0]


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    if (chromium := browser()) is None:
        print(f"No pictures: none of {', '.join(BROWSERS)} is installed.")
        return 0
    site, folder = (Path(argument).resolve() for argument in arguments)
    folder.mkdir(parents=True, exist_ok=True)
    wrong = []
    for page in WINDOWS:
        wrong += take(chromium, site, page, folder / f"{page}.png")
    print("\n".join(wrong) or f"Pictures: {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
