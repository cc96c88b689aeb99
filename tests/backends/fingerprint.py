"""What a session is, by the server's own views."""


def fingerprint(raw):
    rows = raw.cursor().execute("""
SELECT 'setting', name || '=' || setting FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'transaction\\_%'
UNION ALL SELECT 'lock', concat_ws('/', classid, objid, objsubid, mode) FROM pg_locks WHERE locktype='advisory' AND pid=pg_backend_pid()
UNION ALL SELECT 'prepared', name FROM pg_prepared_statements WHERE from_sql
UNION ALL SELECT 'cursor', name FROM pg_cursors WHERE is_holdable
UNION ALL SELECT 'channel', c FROM pg_listening_channels() c
UNION ALL SELECT 'temp', relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
UNION ALL SELECT 'user', current_user || '/' || session_user || '/' || current_setting('role')
""").fetchall()
    return frozenset(rows)
