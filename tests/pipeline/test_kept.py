"""What a process keeps is worked out once, however many threads ask."""

import time
from concurrent.futures import ThreadPoolExecutor

from pipeline.kept import kept


def test_a_result_is_worked_out_once_for_all_threads():
    calls = []

    @kept(1)
    def slow(number):
        calls.append(number)
        time.sleep(0.05)
        return [number]

    with ThreadPoolExecutor(4) as threads:
        first, *others = threads.map(slow, [1] * 8)
    assert calls == [1]
    assert all(other is first for other in others)


def test_as_many_results_are_kept_as_were_asked_for():
    calls = []
    twice = kept(2)(lambda number: calls.append(number) or number)
    assert [twice(number) for number in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert calls == [1, 2, 3, 2]
