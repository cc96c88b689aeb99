"""Send tasks, and print their ids, each with the token it is to write.

``python -m project.send 60`` sends 60 of them.
"""

from __future__ import annotations

import json
import sys

import django

django.setup()

from . import tasks  # noqa: E402

TASKS = (tasks.write, tasks.state, tasks.fails)


def main() -> None:
    sent = {}
    for number in range(int(sys.argv[1])):
        task = TASKS[number % len(TASKS)]
        token = f"{task.name}-{number}"
        sent[task.delay(token).id] = token
    print(json.dumps(sent))


if __name__ == "__main__":
    main()
