"""Markup: the rows of the tables.

They are thousands of cells. To read and write each in the template costs ten times as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from relet.dashboard.rows import FleetColumn, SessionRow


@dataclass(frozen=True)
class Line:
    """What a row of a table has beside its cells.

    :param id: its anchor.
    :param kind: its class.
    :param more: a cell at the end of it, as HTML.
    """

    id: str = ""
    kind: str = ""
    more: str = ""


def table_rows(columns: Sequence[FleetColumn], rows: Iterable[tuple[Any, Line]]) -> SafeString:
    """Return the rows of a table."""
    # A cell has its column's name, for narrow screens.
    cells = [
        (format_html('<td data-label="{}"{}>', one.name, _class("right" * one.right)), one.text)
        for one in columns
    ]
    return format_html_join(
        "",
        "<tr{}{}>{}{}</tr>\n",
        (
            (
                format_html(' id="{}"', line.id) if line.id else "",
                _class(line.kind),
                # Safe: what a row has in it is escaped, whatever it is.
                mark_safe("".join([f"{td}{escape(text(row))}</td>" for td, text in cells])),
                line.more,
            )
            for row, line in rows
        ),
    )


def _class(name: str) -> SafeString | str:
    return format_html(' class="{}"', name) if name else ""


def more(row: SessionRow, *, ahead: str, is_open: bool, token: str | None) -> SafeString:
    """Return the cell of a session that has its stacks, and what can be done.

    :param ahead: the anchor of the session that it waits for; "" for none.
    :param is_open: whether its stacks are open.
    :param token: the CSRF token of who may end it; None for others.
    """
    return format_html(
        '<td data-label="more">{}{}{}</td>',
        _stacks(row, is_open=is_open),
        format_html('<a href="#{}">to {}</a> ', ahead, row.chain[0]) if ahead else "",
        _end(row, token) if token and row.started else "",
    )


def _stacks(row: SessionRow, *, is_open: bool) -> SafeString | str:
    stacks = row.shown_stacks
    if not stacks:
        return ""
    return format_html(
        "<details{}><summary>stacks</summary>{}</details>",
        " open" if is_open else "",
        format_html_join("", '<h3>{}</h3><pre class="stack">{}</pre>', stacks),
    )


def _end(row: SessionRow, token: str) -> SafeString:
    return format_html(
        '<form method="post" action="end/">'
        '<input type="hidden" name="csrfmiddlewaretoken" value="{token}">'
        '<input type="hidden" name="alias" value="{alias}">'
        '<input type="hidden" name="pid" value="{pid}">'
        '<input type="hidden" name="started" value="{started}">'
        '<button aria-label="End session {pid}" title="Ends this session of the server. '
        'Its transaction is rolled back.">End</button></form>',
        token=token,
        alias=row.alias,
        pid=row.pid,
        started=row.started,
    )
