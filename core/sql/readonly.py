"""Reads: which statements only read, as far as their text shows.

https://www.postgresql.org/docs/current/xfunc-volatility.html
"""

from __future__ import annotations

from functools import lru_cache

from .statements import OTHER, WORD, Statement, readings, split, text_at


def _words(text: str) -> set[str]:
    return set(text.split())


_HEADS = _words("select with values table (")
#: Words that write or create a table, and words that lock rows after FOR.
_WRITES = _words("insert update delete merge into call")
_LOCKS = _words("update share no key")
#: Key words that may come before a parenthesis.
_KEY_WORDS = _words("""
    all and any array as between by case cast cube distinct else end escape except exists extract
    filter from group grouping having ilike in intersect is join lateral like limit materialized
    not offset on or over recursive rollup row select sets similar some then to union using values
    when where within
""")
_TYPES = _words("bit char character decimal float interval numeric time timestamp varchar")
#: Functions of `pg_catalog`. None is volatile, except for a few that change nothing. A test checks
#: this against the server.
FUNCTIONS = _words("""
    array_agg avg bit_and bit_or bool_and bool_or corr count covar_pop covar_samp cume_dist
    dense_rank every first_value json_agg json_object_agg jsonb_agg jsonb_object_agg lag last_value
    lead max min mode nth_value ntile percent_rank percentile_cont percentile_disc rank regr_avgx
    regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy row_number
    stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance

    ascii btrim char_length chr concat concat_ws format initcap left length lower lpad ltrim md5
    octet_length overlay position regexp_match regexp_replace repeat replace reverse right rpad
    rtrim sha224 sha256 sha384 sha512 split_part starts_with strpos substr substring translate upper

    abs acos asin atan atan2 cbrt ceil ceiling cos cot degrees exp floor ln log mod pi power radians
    random round sign sin sqrt tan trunc width_bucket

    age clock_timestamp date_part date_trunc extract justify_interval make_date make_interval
    make_time make_timestamp now statement_timestamp timezone to_char to_date to_number
    to_timestamp transaction_timestamp

    json_build_array json_build_object jsonb_array_elements jsonb_array_length jsonb_build_array
    jsonb_build_object jsonb_extract_path jsonb_extract_path_text jsonb_object_keys
    jsonb_path_exists jsonb_path_query jsonb_set jsonb_typeof row_to_json to_json to_jsonb

    array_append array_cat array_length array_position array_positions array_prepend array_remove
    array_to_string array_upper cardinality generate_series generate_subscripts unnest
    daterange int4range int8range isempty lower_inc numrange tsrange tstzrange upper_inc
    phraseto_tsquery plainto_tsquery setweight to_tsquery to_tsvector ts_headline ts_rank
    ts_rank_cd websearch_to_tsquery

    current_database current_schema current_setting pg_backend_pid pg_typeof version
""")
#: Functions of the SQL grammar, which are not in the catalogue.
_EXPRESSIONS = _words("coalesce greatest least nullif trim")
_CALLABLE = FUNCTIONS | _EXPRESSIONS | _KEY_WORDS | _TYPES


#: The maximum length of a text that is cached. Longer ones, such as bulk statements, seldom recur.
_LONGEST = 4_000


def only_reads(sql: str) -> bool:
    """Return whether *sql* is one query that locks no rows and calls only functions known to read.

    In doubt, the answer is False. But the text does not show a view over a function that writes, a
    user-defined operator or cast, or a function in a schema before `pg_catalog` in the search path.
    """
    return _cached(sql) if len(sql) <= _LONGEST else _only_reads(sql)


def _only_reads(sql: str) -> bool:
    return all(_is_read(split(way)) for way in readings(sql))


_cached = lru_cache(maxsize=4096)(_only_reads)


def _is_read(found: list[Statement]) -> bool:
    if len(found) != 1 or text_at(found[0], 0) not in _HEADS or found[0][0].quoted:
        return False
    return _writes_nothing(found[0])


def _writes_nothing(statement: Statement) -> bool:
    before = statement[0]
    for position, token in enumerate(statement):
        kind, text, quoted = token
        if kind is WORD and not quoted:
            if text in _WRITES or (before.text == "for" and text in _LOCKS):
                return False
        elif (
            kind is OTHER
            and text == "("
            and before.kind is WORD
            and not _is_harmless(statement, position - 1)
        ):
            return False
        before = token
    return True


def _is_harmless(statement: Statement, position: int) -> bool:
    """Return whether the word at *position*, before a parenthesis, cannot write."""
    word = statement[position]
    if position and statement[position - 1].text == ".":
        schema = statement[position - 2].text if position > 1 else ""
        return schema == "pg_catalog" and word.text in FUNCTIONS
    return word.text in _CALLABLE and not word.quoted
