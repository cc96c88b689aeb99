"""Sphinx."""

from importlib.metadata import version as installed_version

project = "relet"
author = "The relet developers"
project_copyright = f"2026, {author}"
release = version = installed_version("relet")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.mermaid"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"relet {release}"

# `name` in a docstring is code, and a link where there is something to link to.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
myst_heading_anchors = 3
