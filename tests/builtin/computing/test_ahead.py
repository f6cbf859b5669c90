"""Items that are computed while the ones before them are used."""

import threading

import pytest

from nnunet_builtin.computing.ahead import ahead


def test_the_next_item_is_computed_while_one_is_used():
    begun, used = threading.Event(), []

    def items():
        yield 0
        begun.set()
        yield 1
        yield 2

    for item in ahead(items()):
        assert begun.wait(5)  # although nobody has asked for the second one
        used.append(item)
    assert used == [0, 1, 2]


def test_errors_come_through_and_an_early_end_closes_the_items():
    closed = []

    def failing():
        try:
            yield 0
            raise ValueError("as planned")
        finally:
            closed.append(True)

    stream = ahead(failing())
    assert next(stream) == 0
    with pytest.raises(ValueError, match="as planned"):
        next(stream)

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    stream = ahead(endless())
    assert next(stream) == 1
    stream.close()
    assert closed == [True, True]
