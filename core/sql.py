"""SQL text as tokens, and tokens as statements, by PostgreSQL's lexical rules.

Only as much as it takes to tell code from what is none: comments, string constants,
quoted identifiers and parameters. There is no grammar here, and no error: what the
server would refuse to parse, it does not run.

https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations

import re
from functools import partial
from itertools import takewhile
from typing import ClassVar, NamedTuple

WORD, STRING, PARAMETER, OTHER = "word", "string", "parameter", "other"


class Token(NamedTuple):
    """What the server's lexer would take for one.

    :param kind: `WORD` (a key word or an identifier, quoted or not), `STRING`,
        `PARAMETER` (a driver's placeholder) or `OTHER` (operators, numbers, punctuation).
    :param text: words as PostgreSQL folds them, strings as their value, everything else
        as it is written.
    :param quoted: whether a word was quoted; so it is no key word.
    """

    kind: str
    text: str
    quoted: bool = False


Statement = list[Token]

# The patterns are ASCII: to PostgreSQL any other character is a letter, even the no-break
# space. They are unrolled, as `([^']+|'')*` takes for ever where a quote is missing.
_LETTERS = r"\x80-\U0010ffff"
_PLAIN = r"'[^']*(?:''[^']*)*'"
_ESCAPED = r"'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'"
# A string goes on after a line break; comments of one line may stand between.
_GAP = r"(?:[ \t\f\v]|--[^\r\n]*)*[\r\n](?:\s|--[^\r\n]*[\r\n])*(?=')"

# General-purpose tokenizers for SQL (sqlparse) do not know nested comments, E'' or U&"",
# and take ten times as long as there is: a text is classified on its way to the server.
_TOKEN = re.compile(
    rf"""\s* (?:
      (?P<word>
        (?: [AC-DF-MO-TV-WYZac-df-mo-tv-wyz_{_LETTERS}] | [BENXbenx](?!') | [Uu](?!&['"]) )
        [\w${_LETTERS}]* )
    | " (?P<quoted> [^"]* ) " (?!")
    | (?P<other>
        [,.();*<>+\[\]] | :: | := | => | = | %% | -(?!-) | /(?!\*)
        | \d+ (?: \.\d* )? (?: [eE][+-]?\d+ )? | [BbXx]'[^']*' )
    | (?P<parameter> (?: %[sbt] | %\([^)]+\)[sbt] )(?![\w${_LETTERS}]) | \$\d+ )
    | (?P<string> (?:[Nn]|[Uu]&)?{_PLAIN}(?:{_GAP}{_PLAIN})* | [Ee]{_ESCAPED}(?:{_GAP}{_ESCAPED})* )
    | (?P<identifier> (?:[Uu]&)?"[^"]*(?:""[^"]*)*" )
    | (?P<dollar> \$(?:[A-Za-z_{_LETTERS}][\w{_LETTERS}]*)?\$ )
    | (?P<comment> /\* )
    | --[^\r\n]*
    | (?P<any> . )
    | \Z
    )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_WORD, _QUOTED, _OTHER, _PARAMETER, _STRING, _IDENTIFIER, _DOLLAR, _COMMENT, _ANY = range(1, 10)
_OTHERS = (_OTHER, _ANY)

_SYMBOLS = {text: Token(OTHER, text) for text in (*",.();*=<>+-", "::")}


def tokens(sql: str) -> list[Token]:
    """Return the tokens of *sql*, without comments and white space."""
    found: list[Token] = []
    add, make = found.append, partial(tuple.__new__, Token)  # Token() takes twice as long
    unicode: dict[int, str] = {}  # U&"" and U&'' as they are written
    start: int | None = 0
    while start is not None:
        matches, start = _TOKEN.finditer(sql, start), None
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
            elif group == _PARAMETER:
                add(make((PARAMETER, text, False)))
            elif group == _COMMENT:
                start = _end_of_comment(sql, match.end())
                break
            elif group == _DOLLAR:
                end = sql.find(text, match.end())
                if end == -1:
                    add(make((OTHER, text, False)))
                else:
                    add(make((STRING, sql[match.end() : end], False)))
                    start = end + len(text)
                    break
            else:
                if text[0] in "uU":
                    unicode[len(found)] = text
                word = group == _IDENTIFIER
                add(
                    make(
                        (WORD, _identifier(text), True) if word else (STRING, _string(text), False)
                    )
                )
    if unicode:
        _apply_escape_characters(found, unicode)
    return found


def statements(sql: str) -> list[Statement]:
    """Return the statements of *sql*, each as its tokens. Empty ones are left out."""
    found: list[Statement] = []
    statement: Statement = []
    every = tokens(sql)
    if ";" not in sql:
        return [every] if every else []
    depth, body = 0, _RoutineBody()
    for token in every:
        kind, text, quoted = token
        if kind is OTHER:
            if text == "(":
                depth += 1
            elif text == ")":
                depth -= 1
            elif text == ";" and depth <= 0 and not body.open:
                found.append(statement)
                statement, depth, body = [], 0, _RoutineBody()
                continue
        elif text in body.EDGES and kind is WORD and not quoted:
            body.take(statement, text)
        statement.append(token)
    found.append(statement)
    return [statement for statement in found if statement]


class _RoutineBody:
    """Whether a statement is in the middle of ``BEGIN ATOMIC ... END``, which has semicolons.

    https://www.postgresql.org/docs/current/sql-createfunction.html
    """

    EDGES: ClassVar[frozenset[str]] = frozenset(("atomic", "case", "end"))

    def __init__(self) -> None:
        self.open = 0

    def take(self, statement: Statement, word: str) -> None:
        if not statement or statement[-1].text in ("as", "."):
            return  # the name of a column
        if self.open:
            self.open += (word == "case") - (word == "end")
        elif word == "atomic" and [t.text for t in (statement[0], statement[-1])] == _BEGINNING:
            self.open = 1


_BEGINNING = ["create", "begin"]


def _end_of_comment(sql: str, position: int) -> int:
    depth = 1
    for edge in _COMMENT_EDGE.finditer(sql, position):
        depth += 1 if edge.group() == "/*" else -1
        if not depth:
            return edge.end()
    return len(sql)


_COMMENT_EDGE = re.compile(r"/\*|\*/")


def _fold(word: str) -> str:
    """In lower case, but for what PostgreSQL leaves alone."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in word)


def _identifier(text: str, escape: str = "\\") -> str:
    name = text[text.index('"') + 1 : -1].replace('""', '"')
    return name if text[0] == '"' else _code_points(name, escape)


def _string(text: str, escape: str = "\\") -> str:
    start = text.index("'")
    segment = _ESCAPED_SEGMENT if text[0] in "eE" else _PLAIN_SEGMENT
    value = "".join(part[1] for part in segment.finditer(text, start)).replace("''", "'")
    if "\\" not in value and escape not in value:
        return value
    if text[0] in "eE":
        return _ESCAPE.sub(_unescaped, value)
    return _code_points(value, escape) if text[0] in "uU" else value


_PLAIN_SEGMENT = re.compile(rf"'([^']*(?:''[^']*)*)'(?:{_GAP})?", re.ASCII)
_ESCAPED_SEGMENT = re.compile(
    rf"'([^'\\]*(?:(?:\\.|'')[^'\\]*)*)'(?:{_GAP})?", re.DOTALL | re.ASCII
)

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


def _code_points(text: str, escape: str) -> str:
    """What is meant by the text of U&"" or U&''."""
    pattern = rf"{re.escape(escape)}(?:([0-9A-Fa-f]{{4}})|\+([0-9A-Fa-f]{{6}})|{re.escape(escape)})"
    return re.sub(
        pattern,
        lambda code: _character(int(code[1] or code[2], 16)) if code[1] or code[2] else escape,
        text,
    )


def _character(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else "\ufffd"


def _apply_escape_characters(found: list[Token], unicode: dict[int, str]) -> None:
    """Read U&"" and U&'' again where ``UESCAPE '!'`` follows, and drop that."""
    for position in sorted(unicode, reverse=True):
        following = found[position + 1 : position + 3]
        if len(following) == 2 and following[0] == _UESCAPE and len(following[1].text) == 1:
            token, written = found[position], unicode[position]
            read = _identifier if token.kind is WORD else _string
            found[position] = token._replace(text=read(written, following[1].text))
            del found[position + 1 : position + 3]


_UESCAPE = Token(WORD, "uescape")


# What the classifier asks of a statement's tokens.


def text_at(statement: Statement, position: int) -> str:
    """The text of what is there, if that is no string."""
    if not 0 <= position < len(statement) or statement[position].kind is STRING:
        return ""
    return statement[position].text


def closing(statement: Statement, opening: int) -> int:
    """The position of the parenthesis that closes the one at *opening*."""
    depth = 0
    for position in range(opening, len(statement)):
        token = statement[position]
        if token.kind is OTHER:
            depth += (token.text == "(") - (token.text == ")")
            if not depth:
                return position
    return len(statement)


def key_words(statement: Statement) -> list[str]:
    """The words that a statement begins with; "" stands for one that is quoted.

    A parenthesis around a query is passed over.
    """
    start = 0
    while start < len(statement) and statement[start].text == "(":
        start += 1
    leading = takewhile(lambda token: token.kind is WORD, statement[start : start + 8])
    return ["" if token.quoted else token.text for token in leading]


def comma_list(statement: Statement) -> list[Statement]:
    """What is between commas."""
    found: list[Statement] = [[]]
    depth = 0
    for token in statement:
        if token.kind is OTHER:
            depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
            if token.text == "," and not depth:
                found.append([])
                continue
        found[-1].append(token)
    return found
