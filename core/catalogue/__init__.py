"""The catalogue: which functions, triggers, rules and views of a database leave session state.

The SQL that calls a function does not show what the function does. Its source does, which the
database keeps. `queries` asks for it, `bodies` and `closure` judge it, and the `Catalogue` that
comes of it tells the classifier which names have effects. Nothing here does I/O.
"""
