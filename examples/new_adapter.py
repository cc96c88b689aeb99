"""Begin a distribution that brings an adapter: a copy of examples/relet-stack, by another name.

python examples/new_adapter.py mypool [FOLDER]

makes FOLDER/relet-mypool, with the engine `relet.backends.mypool` and its tests. It works from the
start; then put your pool in the place of the stack, file by file, as docs/writing-an-adapter.md
does.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

EXAMPLE = Path(__file__).with_name("relet-stack")
README = """\
# relet-{name}

An adapter for [relet](https://pypi.org/project/relet/).

```shell
python -m pip install relet-{name}
```

```python
DATABASES = {{
    "default": {{
        "ENGINE": "relet.backends.{name}",
        "NAME": "shop",
        "OPTIONS": {{"pool": {{"size": 4}}}},
    }}
}}
```

To run the tests: `python -m pip install '.[testing]' && pytest`.
"""


def renamed(text: str, name: str) -> str:
    """Return *text* of the example with its names replaced: of modules, classes, the adapter."""
    class_name = "".join(part.capitalize() for part in name.split("_"))
    for old, new in {
        "relet_stack": f"relet_{name}",
        "relet-stack": f"relet-{name}",
        "StackPool": f"{class_name}Pool",
        "StackAdapter": f"{class_name}Adapter",
        "relet.backends.stack": f"relet.backends.{name}",
        'name="stack"': f'name="{name}"',
        '\nstack = "': f'\n{name} = "',
    }.items():
        text = text.replace(old, new)
    return text


def make(name: str, folder: Path) -> Path:
    """Write the distribution below *folder*; return where it is.

    :raises ValueError: *name* can be no name of a module, or the example has it.
    :raises FileExistsError: there is something of that name.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "stack":
        raise ValueError(f"{name!r}: give a name of lower-case letters, digits and underscores")
    target = folder / f"relet-{name}"
    target.mkdir(parents=True)
    for source in sorted(EXAMPLE.rglob("*")):
        relative = source.relative_to(EXAMPLE)
        if source.suffix not in (".py", ".toml", ".md") or "build" in relative.parts:
            continue
        path = target / renamed(str(relative), name)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text(encoding="utf-8")
        text = README.format(name=name) if source.name == "README.md" else renamed(text, name)
        path.write_text(text, encoding="utf-8")
    return target


def main(arguments: list[str]) -> int:
    if len(arguments) not in (1, 2):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        target = make(arguments[0], Path(*arguments[1:]))
    except (ValueError, FileExistsError) as error:
        print(f"new_adapter: {error}", file=sys.stderr)
        return 1
    print(f"written: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
