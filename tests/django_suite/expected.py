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
    "backends.postgresql.tests.Tests.test_pool_check_can_be_overridden": "The test looks at "
    "psycopg_pool's private `_check`. relet's own function is there, which calls the user's, so "
    "that an error can tell why it refused a connection.",
    **dict.fromkeys(
        (f"backends.postgresql.tests.Tests.test_connect_{name}" for name in ("pool", "role")),
        "The test wants `connect()` to raise the error of the pool, or of psycopg, where it is "
        "called directly. relet raises Django's errors on every path.",
    ),
    "test_utils.tests.AssertNumQueriesUponConnectionTests."
    "test_ignores_connection_configuration_queries": _IDLE
    + "the test has each `ensure_connection()` that finds none run a query, and counts those. Each "
    "statement that takes a connection calls what stands there.",
}

#: Only on engines of other pools than psycopg_pool.
OTHER_POOLS = dict.fromkeys(
    (
        f"backends.postgresql.tests.Tests.test_{name}"
        for name in ("connect_pool", "pool_check_can_be_overridden", "pool_options_not_mutated")
    ),
    "The test sets options that only psycopg_pool has, and looks at its pool.",
)

_IMPORTS = "The test imports Django's backend for psycopg: "

#: Only on relet.backends.pg8000, without psycopg.
PG8000: dict[str, str] = {
    **dict.fromkeys(
        (
            f"backends.postgresql.tests.Tests.test_{name}"
            for name in (
                *("bypass_role_configuration", "bypass_timezone_configuration"),
                *("connect_custom_cursor_factory", "connect_server_side_binding"),
                *("database_name_empty", "database_name_too_long"),
                *("service_name", "service_name_default_db"),
            )
        ),
        _IMPORTS + "it makes a wrapper of psycopg's, to look at what psycopg would be told.",
    ),
    "backends.postgresql.tests.Tests.test_correct_extraction_psycopg_version": _IMPORTS
    + "it looks how psycopg's version is found out.",
    "backends.postgresql.tests.Tests.test_connect_role": "The test asks for psycopg's class "
    "InvalidParameterValue. pg8000 has PEP 249's classes; the SQLSTATE is in `sqlstate`.",
    "backends.postgresql.tests.Tests.test_copy_cursors": "The test calls psycopg's "
    "`cursor.copy()`. Here it is `copy_expert()`.",
    "backends.postgresql.test_server_side_cursors.ServerSideCursorsPostgres."
    "test_server_side_binding": "The test asks for the parameters to be bound by psycopg on the "
    "server. Simple queries cannot, and `server_side_binding` is refused.",
    "postgres_tests.test_apps.PostgresConfigTests.test_register_serializer_for_migrations": "The "
    "test wants migrations to import `psycopg.types.range`. They import relet's class.",
    "postgres_tests.test_integration.PostgresIntegrationTests.test_check": "The test starts a "
    'project with the app "django.contrib.postgres", which imports psycopg. Without, it is to have '
    "relet's PostgresConfig.",
    "postgres_tests.test_introspection.InspectDBTests.test_hstore_field": _IMPORTS
    + "it asks for psycopg's version, to know what to expect.",
}

if os.geteuid() == 0:
    EXPECTED["admin_scripts.tests.StartApp.test_custom_app_directory_creation_error_handling"] = (
        "Not relet's: the test takes away a permission that root does not need."
    )
