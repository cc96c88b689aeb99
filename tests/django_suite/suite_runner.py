"""Django's test runner, which also writes down what ran and what failed."""

import json
import os
from pathlib import Path
from typing import Any

from django.test.runner import DiscoverRunner
from django.test.utils import iter_test_cases


class RecordingRunner(DiscoverRunner):
    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        self._ran = [test.id() for test in iter_test_cases(suite)]
        return super().run_suite(suite, **kwargs)

    def suite_result(self, suite: Any, result: Any, **kwargs: Any) -> int:
        failed = {_id(test) for test, _ in result.failures + result.errors}
        failed |= {_id(test) for test in result.unexpectedSuccesses}
        Path(os.environ["RELET_SUITE_RESULT"]).write_text(
            json.dumps({"ran": self._ran, "failed": sorted(failed), "skipped": len(result.skipped)})
        )
        return super().suite_result(suite, result, **kwargs)


def _id(test: Any) -> str:
    # A subtest's own id has its parameters in it.
    return getattr(test, "test_case", test).id()
