"""Where relet differs from what Django's tests assert, and why."""

import os

_IDLE = "An idle wrapper holds no connection: "

EXPECTED: dict[str, str] = {
    "backends.tests.ConnectionCreatedSignalTest.test_signal": _IDLE
    + "a cursor that runs nothing takes none, and the signal is for connections that are new.",
    "backends.tests.ThreadTests.test_default_connection_thread_local": _IDLE
    + "the test opens cursors in three threads and compares their wrappers' idle connections.",
    "backends.postgresql.tests.Tests.test_pooling_health_checks": "The test looks whether "
    "psycopg_pool's own `check`, a round trip for each checkout, is set. relet checks "
    "connections itself, and only those that were idle; `check` stays the user's.",
}

#: Only on engines of other pools than psycopg_pool.
OTHER_POOLS = dict.fromkeys(
    (
        f"backends.postgresql.tests.Tests.test_{name}"
        for name in ("connect_pool", "pool_check_can_be_overridden", "pool_options_not_mutated")
    ),
    "The test sets options that only psycopg_pool has, and looks at its pool.",
)

if os.geteuid() == 0:
    EXPECTED["admin_scripts.tests.StartApp.test_custom_app_directory_creation_error_handling"] = (
        "Not relet's: the test takes away a permission that root does not need."
    )
