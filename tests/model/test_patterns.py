import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import Architecture
from model.patterns import Places, block_mask, consecutive, dense_mask, predicate, restarting

PATTERNS = ["full", "local", "banded", "strided", "fixed"]
CPU = torch.device("cpu")


def described(pattern, i, j, shape):
    """The pattern as the papers put it, for one query and one key: the keys of `i`, listed."""
    if pattern == "full":
        return j in range(i + 1)
    if pattern in ("local", "banded"):
        return j in range(i - shape.window + 1, i + 1)
    if pattern == "strided":
        return j in range(i - shape.stride + 1, i + 1) or j in range(i, -1, -shape.stride)
    block = range(i - i % shape.stride, i + 1)
    ends = [end - back for end in range(shape.stride, i + 1, shape.stride) for back in range(1, shape.summary + 1)]
    return j in block or j in ends


@st.composite
def shapes(draw):
    stride = draw(st.integers(1, 9))
    return Architecture(window=draw(st.integers(1, 20)), stride=stride, summary=draw(st.integers(1, stride)))


@pytest.mark.parametrize("pattern", PATTERNS)
@given(shape=shapes(), length=st.integers(1, 24))
def test_the_mask_is_the_pattern_as_described(pattern, shape, length):
    mask = dense_mask(predicate(pattern, shape), consecutive(length, CPU))
    expected = [[j <= i and described(pattern, i, j, shape) for j in range(length)] for i in range(length)]
    assert mask.tolist() == expected


@pytest.mark.parametrize("pattern", PATTERNS)
@given(shape=shapes(), before=st.integers(0, 20), length=st.integers(1, 8))
def test_the_mask_of_a_caches_slots_is_the_last_row_of_the_whole_mask(pattern, shape, before, length):
    sees = predicate(pattern, shape)
    whole = dense_mask(sees, consecutive(before + length, CPU))
    newest = torch.tensor([before + length - 1])
    slots = torch.arange(before + length).roll(before)[None]  # as a ring may hold them, and one empty
    cached = Places(newest[:, None], torch.cat([slots, torch.tensor([[-1]])], dim=1))
    seen = dense_mask(sees, cached)[0, 0, 0]
    assert seen[:-1].equal(whole[-1, slots[0]])
    assert not seen[-1]


runs = st.lists(st.integers(1, 7), min_size=1, max_size=5)


def numbered(lengths):
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))


@given(lengths=runs)
def test_positions_begin_anew_with_each_document(lengths):
    documents = torch.stack([numbered(lengths), numbered(lengths[::-1])])
    expected = [[place for length in order for place in range(length)] for order in (lengths, lengths[::-1])]
    assert restarting(documents).queries.tolist() == expected


@pytest.mark.parametrize("pattern", PATTERNS)
@given(shape=shapes(), lengths=runs)
def test_each_document_has_the_mask_that_it_would_have_alone(pattern, shape, lengths):
    sees = predicate(pattern, shape)
    alone = torch.block_diag(*(dense_mask(sees, consecutive(length, CPU)) for length in lengths)).bool()
    assert dense_mask(sees, restarting(numbered(lengths)[None]))[0, 0].equal(alone)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("documents", [None, torch.stack([numbered([9, 1, 90, 100]), numbered([150, 50])])])
def test_blocks_say_what_the_dense_mask_says(pattern, documents):
    sees = predicate(pattern, Architecture(window=20, stride=16, summary=3))
    places = consecutive(200, CPU) if documents is None else restarting(documents)
    blocks, dense = block_mask(sees, places), dense_mask(sees, places)
    every = torch.arange(200)
    for row in range(1 if documents is None else 2):
        said = blocks.mask_mod(torch.tensor(row), torch.tensor(0), every[:, None], every[None])
        assert said.equal(dense if documents is None else dense[row, 0])
    # 200 tokens are 2 x 2 blocks of 128, of which one lies after the diagonal.
    assert blocks.to_dense()[0, 0].tolist() == [[1, 0], [1, 1]]


def test_only_the_blocks_that_a_window_reaches_are_computed():
    blocks = block_mask(predicate("local", Architecture(window=100)), consecutive(512, CPU))
    assert blocks.to_dense()[0, 0].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
