"""Links to the documentation of other projects, without a look at their inventories.

Sphinx's intersphinx downloads those when the site is built. Here each object that docstrings and
pages name is listed, so that a misspelt one is still a warning.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes

PYTHON = "https://docs.python.org/3/library/{module}.html#{name}"
DJANGO = "https://docs.djangoproject.com/en/stable/ref/{page}"
PLUGGY = "https://pluggy.readthedocs.io/en/stable/api_reference.html#{name}"

#: Of Python's library: module -> names.
_PYTHON = {
    "collections.abc": (
        *("Callable", "Collection", "Iterable", "Iterator", "Mapping", "Sequence", "Set"),
    ),
    "threading": ("get_ident",),
    "time": ("monotonic",),
}
#: What Django has: name -> where, below its reference.
_DJANGO = {
    "ImproperlyConfigured": "exceptions/#django.core.exceptions.ImproperlyConfigured",
    "OperationalError": "exceptions/#database-exceptions",
    "django.db.OperationalError": "exceptions/#database-exceptions",
}

LINKS = {
    f"{module}.{name}": PYTHON.format(module=module, name=f"{module}.{name}")
    for module, names in _PYTHON.items()
    for name in names
}
LINKS |= {name: DJANGO.format(page=page) for name, page in _DJANGO.items()}
LINKS["pluggy.HookimplMarker"] = PLUGGY.format(name="pluggy.HookimplMarker")

#: What docstrings name that is no part of the public API: it is shown, and leads nowhere.
INTERNAL = (
    r"relet\.(core|adapters|backends)\..*",
    r"(Facts|FairSemaphore|SessionLedger|SessionAudit|Baseline|LeasingWrapper)",
    r"(ReleasePolicy|PoolStats|PoolConfig)(\.\w+)?",
    r"(CollectorRegistry|Collector|MeterProvider)",
    # Options and columns, by their own names.
    r"(session_state|now_at|notes|max_size)",
    # Parts of annotations that Sphinx splits at their commas.
    r"(tuple\[~relet.*|collections\.abc\.Mapping\[str)",
)


def link(
    app: Any, env: Any, node: nodes.Element, content: nodes.TextElement
) -> nodes.reference | None:
    """Return a link to what *node* refers to, if it is another project's."""
    target = node.get("reftarget", "")
    if target not in LINKS:
        return None
    reference = nodes.reference("", "", internal=False, refuri=LINKS[target])
    reference += content
    return reference
