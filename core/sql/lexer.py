"""SQL text as tokens, by PostgreSQL's lexical rules.

The lexer knows just enough to tell code from comments, string constants, quoted identifiers and
placeholders. It knows no grammar and raises no errors, because the server does not run what it
cannot parse.

Each scan is linear (invariant I17). A pattern matches a text in only one way, so it does not
backtrack. A token with a closing delimiter, such as a string, is read once. If it is not closed, it
extends to the end of the text.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import NamedTuple

WORD, STRING, PARAMETER, OTHER = "word", "string", "parameter", "other"


class Token(NamedTuple):
    """A token, as the server's lexer would find it.

    :param kind: `WORD` (a key word or an identifier, quoted or not), `STRING`,
        `PARAMETER` (a driver's placeholder) or `OTHER` (operators, numbers, punctuation).
    :param text: a word in the case to which PostgreSQL folds it, the value of a string, or any
        other token as written.
    :param quoted: whether it is a quoted word, which is never a key word.
    """

    kind: str
    text: str
    quoted: bool = False


def letters(ascii_ones: str) -> str:
    """Return a character class: *ascii_ones*, and all beyond ASCII.

    To PostgreSQL these are letters, even the no-break space. The class is written as what it
    excludes, which compiles in a tenth of the time.
    """
    excluded = re.sub(f"[{ascii_ones}]", "", "".join(map(chr, range(128))))
    return f"[^{re.escape(excluded)}]"


# The patterns are ASCII.
_PART, _TAG_PART = letters(r"\w$"), letters(r"\w")
_DIGITS = r"\d+(?:_\d+)*"
#: A placeholder. Its name has letters only, so it hides no code if it is not a placeholder.
_PLACEHOLDER = r"%(?: [sbt] | \([\w\ ]+\)[sbt] )"


@cache
def _pattern(bound: bool) -> re.Pattern[str]:
    """Return the pattern of a token; see `tokens`. Many processes need none of them."""
    # Without parameters, a ``%s`` before a letter may be an operator.
    placeholder = _PLACEHOLDER if bound else rf"{_PLACEHOLDER}(?!{_PART})"
    # General-purpose SQL tokenizers (sqlparse) do not know nested comments, E'' or U&"". They also
    # take ten times as long, and a statement is classified before it is sent.
    return re.compile(
        rf"""\s* (?:
          (?P<word>
            (?: {letters("AC-DF-MO-TV-WYZac-df-mo-tv-wyz_")} | [BENXbenx](?!') | [Uu](?!&['"]) )
            {_PART}* )
        | " (?P<quoted> [^"]* ) " (?!")
        | (?P<other>
            [,();*<>+\[\]] | \.(?!\d) | :: | := | => | = | %% | -(?!-) | /(?!\*)
            | 0 (?: [xX][0-9A-Fa-f]+(?:_[0-9A-Fa-f]+)* | [oO][0-7]+(?:_[0-7]+)*
                | [bB][01]+(?:_[01]+)* )
            | (?: {_DIGITS} (?: \.(?!\.) (?:{_DIGITS})? )? | \.{_DIGITS} )
              (?: [eE][+-]?{_DIGITS} )? )
        | (?P<parameter> {placeholder} | \$\d+ )
        | ' (?P<string> [^'\\]* ) ' (?! [ \t\f\v]* ['\r\n-] )
        | (?P<begin>
            /\* | (?: [NnEeBbXx] | [Uu]& )? ' | (?:[Uu]&)? "
            | \$ (?: {letters("A-Za-z_")} {_TAG_PART}* )? \$ | %(?=[sbt]) | %\( )
        | --[^\r\n]*
        | (?P<any> . )
        | \Z
        )""",
        re.VERBOSE | re.DOTALL | re.ASCII,
    )


_WORD, _QUOTED, _OTHER, _PARAMETER, _STRING, _BEGIN, _ANY = range(1, 8)
_OTHERS = (_OTHER, _ANY)

#: A string continues after a line break, possibly with one-line comments in between.
_GAP = re.compile(r"[ \t\f\v]*(?:--[^\r\n]*)?[\r\n]\s*(?:--[^\r\n]*[\r\n]\s*)*(?=')", re.ASCII)
#: What every string has in it that continues after a line break; others may have it, too.
CONTINUED = re.compile(r"'[ \t\f\v]*(?:--|[\r\n]\s*(?:'|--))", re.ASCII)
#: A closing quote, two quotes that stand for one, or an escaped character.
_PLAIN_EDGE = re.compile(r"''?")
_BITS_EDGE = re.compile("'")
_ESCAPED_EDGE = re.compile(r"\\.|''?", re.DOTALL)
_IDENTIFIER_EDGE = re.compile(r'""?')
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_SYMBOLS = {text: Token(OTHER, text) for text in (*",.();*=<>+-[]", "::")}


def tokens(sql: str, *, bound: bool = False, escapes: bool = False) -> list[Token]:
    """Return the tokens of *sql*, without comments and white space.

    :param bound: whether each ``%s`` and ``%(name)s`` is a placeholder even before a letter, as for
        drivers when parameters are passed. If not, it may be an operator.
    :param escapes: whether a backslash in a plain string is an escape, as when
        ``standard_conforming_strings`` is off.
    """
    return _read(sql, bound, escapes)[0]


def readings(sql: str) -> list[list[Token]]:
    """Return the possible readings of *sql*, each as a list of tokens. Most texts have one.

    Whether ``%s`` before a letter is a placeholder depends on whether parameters are passed.
    Whether a backslash in a plain string is an escape depends on the session.
    """
    found: list[list[Token]] = []
    ways = [(False, False)]
    for bound, escapes in ways:
        read, long = _read(sql, bound, escapes)
        if read not in found:
            found.append(read)
        if long is not None:
            if long.unclear_percent and (True, escapes) not in ways:
                ways.append((True, escapes))
            if long.unclear_backslash and (bound, True) not in ways:
                ways.append((bound, True))
    return found


def _read(sql: str, bound: bool, escapes: bool) -> tuple[list[Token], _Long | None]:
    """Return the tokens, and the reader of the long ones, if there are any."""
    found: list[Token] = []
    add, make = found.append, partial(tuple.__new__, Token)  # Token() takes twice as long
    pattern = _pattern(bound)
    long: _Long | None = None
    unicode: set[int] = set()
    start: int | None = 0
    while start is not None:
        matches, start = pattern.finditer(sql, start), None
        for match in matches:
            group = match.lastindex
            if group is None:
                continue
            text = match[group]
            if group == _WORD:
                add(make((WORD, text.lower() if text.isascii() else _fold(text), False)))
            elif group == _QUOTED:
                add(make((WORD, text, True)))
            elif group in _OTHERS:
                add(_SYMBOLS.get(text) or make((OTHER, text, False)))
            elif group == _STRING:
                add(make((STRING, text, False)))
            elif group == _PARAMETER:
                add(make((PARAMETER, text, False)))
            else:
                long = long or _Long(sql, bound, escapes)
                if text == "%":
                    long.unclear_percent = True
                    add(_PERCENT)
                    continue
                if text[0] in "uU":
                    unicode.add(len(found))
                start = long.read(text, match.end(), add)
                if start != match.end():
                    break
                start = None
    return (_read_unicode(found, unicode) if unicode else found), long


class _Long:
    """A reader of long tokens: strings, quoted identifiers, comments, placeholders with names."""

    __slots__ = (
        "_bound",
        "_escapes",
        "_parenthesis",
        "_sql",
        "unclear_backslash",
        "unclear_percent",
    )

    def __init__(self, sql: str, bound: bool, escapes: bool) -> None:
        self._sql, self._bound, self._escapes = sql, bound, escapes
        #: Whether the reading depends on whether parameters are passed.
        self.unclear_percent = False
        #: Whether the reading depends on standard_conforming_strings.
        self.unclear_backslash = False
        #: The closing parenthesis found by the last search, so that no part is searched twice.
        self._parenthesis = -1

    def read(self, opening: str, begin: int, add: Callable[[Token], None]) -> int:
        """Add the tokens that *opening* begins, and return the position after them.

        :param begin: the position after *opening*.
        """
        sql, last = self._sql, opening[-1]
        if last == "'":
            return self._string(opening[:-1].lower(), begin, add)
        if last == '"':
            end = _closing(_IDENTIFIER_EDGE, sql, begin)
            add(Token(WORD, sql[begin:end].replace('""', '"'), True))
            return end + 1
        if last == "$":
            end = sql.find(opening, begin)
            end = len(sql) if end == -1 else end
            add(Token(STRING, sql[begin:end]))
            return end + len(opening)
        if last == "*":
            return end_of_comment(sql, begin)
        return self._named(begin, add)

    def _string(self, prefix: str, begin: int, add: Callable[[Token], None]) -> int:
        sql, first = self._sql, begin - 1 - len(prefix)
        plain, bits = prefix in ("", "n"), prefix in ("b", "x")
        escapes = prefix == "e" or (plain and self._escapes)
        edge = _ESCAPED_EDGE if escapes else _BITS_EDGE if bits else _PLAIN_EDGE
        parts: list[str] = []
        gap: re.Match[str] | None = None
        while gap is not None or not parts:
            begin = gap.end() + 1 if gap is not None else begin
            end = _closing(edge, sql, begin)
            parts.append(sql[begin:end])
            gap = _GAP.match(sql, end + 1)
        if bits:
            add(Token(OTHER, sql[first : end + 1]))
            return end + 1
        value = "".join(parts).replace("''", "'")
        if "\\" in value:
            self.unclear_backslash |= plain
            value = _ESCAPE.sub(_unescaped, value) if escapes else value
        add(Token(STRING, value))
        return end + 1

    def _named(self, begin: int, add: Callable[[Token], None]) -> int:
        """Read ``%(``: a placeholder with a name, or an operator before a parenthesis."""
        end = self._end_of_name(begin)
        if end is not None:
            self.unclear_percent = True
            if self._bound:
                add(Token(PARAMETER, self._sql[begin - 2 : end]))
                return end
        add(_PERCENT)
        add(_SYMBOLS["("])
        return begin

    def _end_of_name(self, begin: int) -> int | None:
        """Return where the placeholder ends whose name begins at *begin*; None if it is none."""
        sql = self._sql
        if self._parenthesis < begin:
            end = sql.find(")", begin)
            self._parenthesis = len(sql) if end == -1 else end
        end = self._parenthesis
        return end + 2 if end > begin and sql[end + 1 : end + 2] in _FORMATS else None


_FORMATS = ("s", "b", "t")
_PERCENT = Token(OTHER, "%")


def _closing(edge: re.Pattern[str], sql: str, begin: int) -> int:
    """Return the position of the closing quote after *begin*, or the end of the text."""
    for match in edge.finditer(sql, begin):
        if match.end() - match.start() == 1:
            return match.start()
    return len(sql)


def end_of_comment(sql: str, position: int) -> int:
    """Return the position after the comment, possibly nested, whose text begins at *position*."""
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, position):
        depth += 1 if edge.group() == "/*" else -1
        if not depth:
            return edge.end()
    return len(sql)


def _fold(word: str) -> str:
    """Return *word* with its ASCII letters in lower case, as PostgreSQL folds it."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in word)


_ESCAPE = re.compile(
    r"\\(?:([0-7]{1,3})|(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))|(.))", re.DOTALL
)
_ESCAPE_CHARACTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unescaped(match: re.Match[str]) -> str:
    octal, *codes, letter = match.groups()
    if letter:
        return _ESCAPE_CHARACTERS.get(letter, letter)
    code = next((code for code in codes if code), "")
    return _character(int(code, 16) if code else int(octal, 8))


def _read_unicode(found: list[Token], unicode: set[int]) -> list[Token]:
    """Decode U&"" and U&'', with the escape character of ``UESCAPE '!'``, which is dropped."""
    read: list[Token] = []
    passed = 0
    for position, token in enumerate(found):
        if position < passed:
            continue
        if position in unicode:
            escape = "\\"
            following = found[position + 1 : position + 3]
            if len(following) == 2 and following[0] == _UESCAPE and len(following[1].text) == 1:
                escape, passed = following[1].text, position + 3
            token = token._replace(text=_code_points(token.text, escape))
        read.append(token)
    return read


_UESCAPE = Token(WORD, "uescape")


def _code_points(text: str, escape: str) -> str:
    """Return the decoded text of U&"" or U&''."""
    if escape not in text:
        return text
    return _unicode_escapes(escape).sub(
        lambda code: _character(int(code[1] or code[2], 16)) if code[1] or code[2] else escape,
        text,
    )


@lru_cache(maxsize=16)
def _unicode_escapes(escape: str) -> re.Pattern[str]:
    escape = re.escape(escape)
    return re.compile(rf"{escape}(?:([0-9A-Fa-f]{{4}})|\+([0-9A-Fa-f]{{6}})|{escape})")


def _character(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else "\ufffd"
