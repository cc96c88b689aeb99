"""Sphinx: how the pages in this folder become a site.

Nothing is fetched while the site is built or read: no inventories of other projects, no scripts,
no fonts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import relet

sys.path.insert(0, str(Path(__file__).parent))

import outside

project = "relet"
author = "The relet developers"
project_copyright = f"2026, {author}"
release = version = relet.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [(r"py:\w+", pattern) for pattern in outside.INTERNAL]

# `name` in a docstring is code, and a link where there is something to link to.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"relet {release}"
html_static_path = ["_static"]
html_css_files = ["relet.css"]
html_favicon = "_static/logo.svg"
html_theme_options = {
    "light_logo": "logo.svg",
    "dark_logo": "logo.svg",
    "sidebar_hide_name": False,
    "light_css_variables": {"color-brand-primary": "#1d5fbf", "color-brand-content": "#1d5fbf"},
    "dark_css_variables": {"color-brand-primary": "#79b0ff", "color-brand-content": "#79b0ff"},
}
html_show_sphinx = False
html_copy_source = False
# Prompts are not copied.
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True


#: Pages that come with features which this version may not have.
OPTIONAL = ("budget", "fleet", "plans")


def leave_out_missing(app: Any, page: str, source: list[str]) -> None:
    """Leave optional pages that are not there out of the table of contents."""
    if page == "index":
        missing = [name for name in OPTIONAL if not Path(app.srcdir, f"{name}.md").exists()]
        lines = source[0].splitlines(keepends=True)
        source[0] = "".join(line for line in lines if line.strip() not in missing)


def setup(app: Any) -> None:
    app.connect("missing-reference", outside.link)
    app.connect("source-read", leave_out_missing)
