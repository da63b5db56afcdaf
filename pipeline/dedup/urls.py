"""Compiled work on many URLs at once: their order, how old each is, and where the next host begins.

URLs stand one after the other in one buffer of bytes, and `ends` tells where each begins and ends.
"""

import numpy as np

from pipeline.kernels import kernel

compiled = kernel(__file__)


@compiled
def copy_strings(data, offsets, rows, out, ends, first):  # type: ignore[no-untyped-def]
    """Append the strings of `rows` to `out`, whose strings end at `ends`, as numbers `first` and following."""
    at = ends[first]
    for place in range(len(rows)):
        row = rows[place]
        for i in range(offsets[row], offsets[row + 1]):
            out[at] = data[i]
            at += 1
        ends[first + place + 1] = at


@compiled
def _compare(data, ends, left, right):  # type: ignore[no-untyped-def]
    """Below 0 where string `left` comes before string `right` byte by byte, 0 where they are the same."""
    i, j = ends[left], ends[right]
    shorter = min(ends[left + 1] - i, ends[right + 1] - j)
    for k in range(shorter):
        if data[i + k] != data[j + k]:
            return np.int64(data[i + k]) - np.int64(data[j + k])
    return (ends[left + 1] - i) - (ends[right + 1] - j)


@compiled
def _follows(data, ends, sources, left, right):  # type: ignore[no-untyped-def]
    order = _compare(data, ends, left, right)
    return order > 0 or (order == 0 and sources[left] > sources[right])


@compiled
def sort_urls(data, ends, sources):  # type: ignore[no-untyped-def]
    """int32[strings]: numbers of the strings by (string, source, number).

    Runs that are in order already, as a sealed snapshot's are, are merged two by two.
    """
    count = len(sources)
    order, other = np.arange(count).astype(np.int32), np.empty(count, np.int32)
    borders = np.empty(count + 1, np.int64)
    runs = 0
    for i in range(count):
        if i == 0 or _follows(data, ends, sources, i - 1, i):
            borders[runs] = i
            runs += 1
    borders[runs] = count
    while runs > 1:
        merged = 0
        for run in range(0, runs, 2):
            i, middle = borders[run], borders[min(run + 1, runs)]
            j, stop, at = middle, borders[min(run + 2, runs)], i
            borders[merged] = i
            merged += 1
            while i < middle and j < stop:
                if _follows(data, ends, sources, order[i], order[j]):
                    other[at] = order[j]
                    j += 1
                else:
                    other[at] = order[i]
                    i += 1
                at += 1
            while i < middle:
                other[at] = order[i]
                i, at = i + 1, at + 1
            while j < stop:
                other[at] = order[j]
                j, at = j + 1, at + 1
        borders[merged] = count
        runs = merged
        order, other = other, order
    return order


@compiled
def first_seen(data, ends, sources, order, ages):  # type: ignore[no-untyped-def]
    """Lower each age to the least of the same URL in the same source; `order` is that of `sort_urls`."""
    first = 0
    for last in range(1, len(order) + 1):
        if last < len(order):
            left, right = order[first], order[last]
            if sources[left] == sources[right] and _compare(data, ends, left, right) == 0:
                continue
        least = ages[order[first]]
        for i in range(first, last):
            least = min(least, ages[order[i]])
        for i in range(first, last):
            ages[order[i]] = least
        first = last


@compiled
def starts_anew(data, offsets):  # type: ignore[no-untyped-def]
    """bool[rows]: whether a URL has another scheme and authority than the one before it."""
    rows = len(offsets) - 1
    anew = np.ones(rows, np.bool_)
    before, length = 0, -1
    for row in range(rows):
        start, stop = offsets[row], offsets[row + 1]
        end, slashes = start, 0
        while end < stop:
            byte = data[end]
            if byte == 0x3F or byte == 0x23:  # ? and #
                break
            slashes += byte == 0x2F
            if slashes == 3:
                break
            end += 1
        if end - start == length:
            anew[row] = False
            for i in range(length):
                if data[start + i] != data[before + i]:
                    anew[row] = True
                    break
        before, length = start, end - start
    return anew
