"""The collector of cycles rests and works again."""

import gc
import threading

import pytest

from nnunet_core.runtime.collecting import collector_rests, collector_works


def test_it_is_as_before_after_a_rest_and_after_an_error():
    with collector_rests():
        assert not gc.isenabled()
        with collector_works():
            assert gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), collector_rests():
        raise KeyError
    assert gc.isenabled()


def test_threads_that_overlap_leave_it_on():
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first():
        with collector_rests():
            first_is_in.set()
            second_is_in.wait(10)
        first_is_out.set()

    def second():
        first_is_in.wait(10)
        with collector_rests():
            second_is_in.set()
            first_is_out.wait(10)

    threads = [threading.Thread(target=each) for each in (first, second)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert gc.isenabled()
    finally:
        gc.enable()
