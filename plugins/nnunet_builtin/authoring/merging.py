"""A three-way merge of texts by lines, with the marks of `git merge-file` where both changed."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

MINE, BETWEEN, THEIRS = "<<<<<<< yours\n", "=======\n", ">>>>>>> template\n"


def merged(base: str, mine: str, theirs: str) -> tuple[str, int]:
    """Return a text with the changes of both since `base`, and the number of places where they
    contradict each other: both stand there, between marks.
    """
    texts = [text.splitlines(keepends=True) for text in (base, mine, theirs)]
    result: list[str] = []
    conflicts = 0
    done = (0, 0, 0)
    for *starts, length in _shared(*texts):
        old, own, new = (lines[a:b] for lines, a, b in zip(texts, done, starts, strict=True))
        if new in (own, old):
            result += own
        elif own == old:
            result += new
        else:
            conflicts += 1
            result += [MINE, *_ended(own), BETWEEN, *_ended(new), THEIRS]
        result += texts[0][starts[0] : starts[0] + length]
        done = (starts[0] + length, starts[1] + length, starts[2] + length)
    return "".join(result), conflicts


def has_marks(text: str) -> bool:
    """Return whether a text still has marks of a merge."""
    lines = {f"{line}\n" for line in text.splitlines()}
    return MINE in lines and THEIRS in lines


def _ended(lines: list[str]) -> list[str]:
    """Return lines of which the last one ends, too."""
    return [line if line.endswith("\n") else f"{line}\n" for line in lines]


def _shared(
    base: list[str], mine: list[str], theirs: list[str]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield the runs of lines that all three texts have: starts, and length; an empty one at the
    end.
    """
    blocks = [
        SequenceMatcher(None, base, other, autojunk=False).get_matching_blocks()
        for other in (mine, theirs)
    ]
    for first in blocks[0]:
        for second in blocks[1]:
            start = max(first.a, second.a)
            stop = min(first.a + first.size, second.a + second.size)
            if start < stop:
                in_mine, in_theirs = first.b + start - first.a, second.b + start - second.a
                yield start, in_mine, in_theirs, stop - start
    yield len(base), len(mine), len(theirs), 0
