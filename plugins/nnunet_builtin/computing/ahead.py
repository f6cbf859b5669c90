"""Items that are computed while the ones before them are used."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_END = object()


def ahead(items: Generator[_Item, None, None]) -> Generator[_Item, None, None]:
    """Yield the items of a generator, the next one being computed in a thread of its own.

    One item at most is ahead. What the generator raises is raised here; where this one is closed,
    the other is, too.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        try:
            following = thread.submit(next, items, _END)
            while (item := following.result()) is not _END:
                following = thread.submit(next, items, _END)
                yield item  # type: ignore[misc]
        finally:
            thread.submit(items.close).result()
