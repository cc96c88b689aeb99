"""Prepared plans: which statements are prepared, and what each session of the server has prepared.

Data flows one way: a `Target` is declared; the `PlanBook` of a pool finds it for a statement's text
and keeps a `Text`, with a `Shape` for each combination of parameter types; the `SessionPlans` of a
connection have a `Prepared` for each shape that its session has prepared. The driver's part, which
sends it all, is in `relet.adapters`.

https://www.postgresql.org/docs/current/sql-prepare.html
"""

from .book import PlanBook
from .counts import PlanCounts
from .disturbances import Disturbance
from .sessions import Prepared, SessionPlans
from .targets import PLANS, Target, Targets
from .texts import Shape, Text

__all__ = [
    "PLANS",
    "Disturbance",
    "PlanBook",
    "PlanCounts",
    "Prepared",
    "SessionPlans",
    "Shape",
    "Target",
    "Targets",
    "Text",
]
