"""Lines: thousands of texts, searched at once for what makes one of them worth reading.

The sources of a database's functions have many lines in common, so each line is searched once. And
the lines are joined, because to begin a search takes Python as long as to search a line.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

#: Alternatives. A text has one of them if all of its parts are in the text, in lower case. The
#: first part is the one to look for first: others share it, or it is rare.
Clues = tuple[tuple[str, ...], ...]

#: What is no part of a word becomes a space, but for line breaks, and letters become small. So does
#: the dollar sign, because a string that begins with one can begin with a name.
_SPACED = bytes(
    code if chr(code).isalnum() or code in b"_\n" or code > 127 else 32
    for code in (ord(chr(code).lower()) if code < 128 else code for code in range(256))
)


def has_clue(lowered: str, clues: Clues) -> bool:
    """Return whether one of *clues* is in a text.

    :param lowered: the text in lower case.
    """
    for parts in clues:
        for part in parts:
            if part not in lowered:
                break
        else:
            return True
    return False


def words_of(lowered: str) -> list[bytes]:
    """Return the words of a text, those in strings and comments, too.

    :param lowered: the text in lower case.
    """
    return _spaced(lowered).split()


def _spaced(lowered: str) -> bytes:
    return lowered.encode(errors="replace").translate(_SPACED)


class Lines:
    """The lines of texts that are searched together. A text is known by its position among them.

    :ivar texts: the texts.
    :ivar lowered: each of them in lower case.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)
        self.lowered = [text.lower() for text in self.texts]
        #: A line -> the position of the first text that has it, and those of others.
        self._first: dict[str, int] = {}
        self._others: dict[str, list[int]] = defaultdict(list)
        first, others = self._first.setdefault, self._others
        for position, text in enumerate(self.lowered):
            for line in text.split("\n"):
                if first(line, position) != position:
                    others[line].append(position)
        self._joined = "\n".join([*self._first, ""])
        self._having: dict[str, set[int]] = {}

    def having(self, part: str) -> set[int]:
        """Return the positions of the texts that have *part*, in lower case, in them."""
        found = self._having.get(part)
        if found is None:
            found = self._having[part] = set(self._search(part))
        return found

    def _search(self, part: str) -> Iterator[int]:
        if "\n" in part:
            yield from (at for at, text in enumerate(self.lowered) if part in text)
            return
        joined = self._joined
        start = joined.find(part)
        while start != -1:
            end = joined.find("\n", start)
            yield from self._having_line(joined[joined.rfind("\n", 0, start) + 1 : end])
            start = joined.find(part, end)

    def _having_line(self, line: str) -> Iterator[int]:
        """Yield the positions of the texts that have *line*."""
        yield self._first[line]
        yield from self._others.get(line, ())

    def having_clue(self, clues: Clues) -> set[int]:
        """Return the positions of the texts in which `has_clue` finds one of *clues*."""
        found: set[int] = set()
        for first, *others in clues:
            having = self.having(first)
            for part in others:
                having = having and having & self.having(part)
            found |= having
        return found

    def mentions(self, words: set[bytes]) -> dict[bytes, set[int]]:
        """Return each of *words* that a text has, by `words_of`, and the positions of the texts."""
        found: dict[bytes, set[int]] = defaultdict(set)
        spaced = _spaced(self._joined).split(b"\n")  # and an empty text after the last line
        for line, text in zip(self._first, spaced, strict=False):
            for word in words.intersection(text.split()):
                found[word].update(self._having_line(line))
        return found
