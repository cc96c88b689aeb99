"""A panel for django-debug-toolbar: what a request held, waited for, and ran.

https://django-debug-toolbar.readthedocs.io/en/latest/panels.html
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from debug_toolbar.panels import Panel
from django.db import connections
from django.template import Context, Engine

from relet.backends.observe.usage import Usage
from relet.backends.reports.report import seconds

_TEMPLATE = """
{% if not aliases %}<p>No database of this project has an engine of relet's.</p>{% endif %}
{% for alias in aliases %}
<h4>{{ alias.alias }}</h4>
{% if alias.observed %}
<table>
  <thead><tr>
    <th>leases</th><th>waited for the pool</th><th>held</th><th>ran</th><th>held idle</th>
  </tr></thead>
  <tbody><tr>
    <td>{{ alias.leases }}{% if alias.kept %}, one of them not ended{% endif %}</td>
    <td>{{ alias.shown.waited }}</td><td>{{ alias.shown.held }}</td>
    <td>{{ alias.shown.ran }}</td><td>{{ alias.shown.idle }}</td>
  </tr></tbody>
</table>
{% if alias.statements %}
<table>
  <thead><tr>
    <th>statement</th><th>calls</th><th>leases</th><th>waited</th><th>ran</th><th>rows</th>
    <th>errors</th>
  </tr></thead>
  <tbody>
  {% for row in alias.statements %}
  <tr>
    <td><code>{{ row.sql }}</code></td><td>{{ row.calls }}</td><td>{{ row.leases }}</td>
    <td>{{ row.shown.waited }}</td><td>{{ row.shown.ran }}</td><td>{{ row.rows }}</td>
    <td>{{ row.errors }}</td>
  </tr>
  {% endfor %}
  </tbody>
</table>
{% endif %}
{% else %}
<p>It is not observed: <code>OPTIONS["observe"]</code> is <code>False</code>.</p>
{% endif %}
{% endfor %}
<p>A lease lasts from when a connection is taken from the pool until it is given back. While it is
held idle, no statement runs, and nobody else can have it. Only what the thread of the view did is
shown.</p>
"""


class LeasesPanel(Panel):
    """What a request held, waited for, and ran. Add it to ``DEBUG_TOOLBAR_PANELS``."""

    __module__ = "relet.debug_toolbar"  # as in the toolbar's settings

    is_async = True
    title = nav_title = "Leases"

    _usages: tuple[Usage, ...] = ()

    async def aenable_instrumentation(self) -> None:
        """Begin to measure in the thread in which async views use the database."""
        await sync_to_async(self.enable_instrumentation)()

    def enable_instrumentation(self) -> None:
        self._usages = tuple(
            Usage(wrapper) for wrapper in connections.all() if hasattr(wrapper, "adapter_class")
        )

    def generate_stats(self, request: Any, response: Any) -> None:
        self.record_stats({"aliases": [usage.measure() for usage in self._usages]})

    def generate_server_timing(self, request: Any, response: Any) -> None:
        for name, title in ("waited", "Waited for the pool"), ("held", "Held connections"):
            self.record_server_timing(name, title, self._total(name) * 1000)

    def _total(self, name: str) -> float:
        return float(sum(alias.get(name, 0) for alias in self.get_stats().get("aliases", ())))

    @property
    def nav_subtitle(self) -> str:
        leases = int(self._total("leases"))
        text = f"{leases} lease{'' if leases == 1 else 's'}, held {seconds(self._total('held'))}"
        waited = self._total("waited")
        return f"{text}, waited {seconds(waited)}" if waited else text

    @property
    def content(self) -> str:
        aliases = [_shown(alias) for alias in self.get_stats().get("aliases", ())]
        return Engine().from_string(_TEMPLATE).render(Context({"aliases": aliases}))


def _shown(usage: dict[str, Any]) -> dict[str, Any]:
    """Return *usage* with its times as text, in ``shown``."""
    times = {name: seconds(value) for name, value in usage.items() if isinstance(value, float)}
    statements = [_shown(row) for row in usage.get("statements", ())]
    return {**usage, "shown": times, "statements": statements}
