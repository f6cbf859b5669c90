"""Work on one item while the next is prepared and the result of the last one is written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Prepared = TypeVar("_Prepared")
_Result = TypeVar("_Result")
_Written = TypeVar("_Written")


def overlapped(
    items: Sequence[_Item],
    prepare: Callable[[_Item], _Prepared],
    work: Callable[[_Prepared], _Result],
    write: Callable[[_Item, _Result], _Written],
) -> Generator[tuple[_Item, Future[_Written]], None, None]:
    """Yield (item, finished outcome) in the order of the items: `write(item, work(prepare(item)))`.

    `prepare` and `write` run in a thread each, `work` in the thread that iterates. At one time
    there is at most one item that is prepared ahead, one that is worked on and one that is written:
    the memory stays bounded. The outcome raises what any of the three raised; the other items go
    on. Where the iteration ends early, what has begun is finished and nothing else begins: close
    the generator (`contextlib.closing`).
    """
    reader, writer = ThreadPoolExecutor(1, "prepare"), ThreadPoolExecutor(1, "write")
    try:
        written: list[tuple[_Item, Future[_Written]]] = []
        ahead = [reader.submit(prepare, item) for item in items[:1]]
        for number, item in enumerate(items):
            prepared = ahead.pop()
            prepared.exception()  # waits
            ahead = [reader.submit(prepare, following) for following in items[number + 1 :][:1]]
            result = _outcome(prepared, work)
            del prepared  # it is large
            yield from _finished(written)
            written = [(item, _later(writer, write, item, result))]
        yield from _finished(written)
    finally:
        reader.shutdown(cancel_futures=True)
        writer.shutdown()


def _finished(
    written: list[tuple[_Item, Future[_Written]]],
) -> list[tuple[_Item, Future[_Written]]]:
    for _, outcome in written:
        outcome.exception()  # waits
    return written


def _outcome(
    prepared: Future[_Prepared], work: Callable[[_Prepared], _Result]
) -> _Result | Exception:
    try:
        return work(prepared.result())
    except Exception as error:  # noqa: BLE001 (whoever asks for the outcome gets it)
        return error


def _later(
    writer: ThreadPoolExecutor,
    write: Callable[[_Item, _Result], _Written],
    item: _Item,
    result: _Result | Exception,
) -> Future[_Written]:
    if not isinstance(result, Exception):
        return writer.submit(write, item, result)
    failed: Future[_Written] = Future()
    failed.set_exception(result)
    return failed
