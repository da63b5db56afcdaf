"""Examples to fine-tune on: what is scored, what stands alone, what is refused."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import GPTConfig, TrainingError
from model.cross_entropy import IGNORED
from model.gpt import GPT
from model.presets import GPT2, MODERN
from model.training.answers import Line, Rows, digest_of, encode, pack, read, split
from pipeline.shards import load_encoding
from tests.model.conftest import END, VOCAB


@pytest.fixture
def encoding(tokenizer):
    return load_encoding(tokenizer)


def lines_file(tmp_path, *lines):
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    return path


def scored(example):
    """The scored part of an example as bytes, end-of-text as a full stop."""
    return bytes(46 if target == END else target for target in example.targets.tolist() if target != IGNORED)


def test_only_the_answer_and_the_end_of_text_after_it_are_scored(encoding):
    (example,) = encode([Line("ab", "xyz")], encoding, 16).examples
    assert example.inputs.tolist() == [END, *b"ab", *b"xyz"]
    assert example.targets.tolist() == [IGNORED, IGNORED, *b"xyz", END]


def test_of_a_text_everything_is_scored(encoding):
    (example,) = encode([Line(None, "abc")], encoding, 16).examples
    assert example.inputs.tolist() == [END, *b"abc"]
    assert scored(example) == b"abc."


def test_an_empty_prompt_is_a_start_from_end_of_text(encoding):
    assert scored(encode([Line("", "abc")], encoding, 16).examples[0]) == b"abc."


def test_a_prompt_that_is_too_long_loses_its_beginning_and_is_counted(encoding):
    encoded = encode([Line("0123456789", "xyz"), Line("01", "xyz")], encoding, 8)
    assert encoded.examples[0].inputs.tolist() == [*b"56789xyz"]
    assert scored(encoded.examples[0]) == b"xyz."
    assert (encoded.cut, encoded.dropped) == (1, 0)


def test_an_answer_fits_if_its_first_token_has_one_before_it(encoding):
    """Seven tokens and the end are predicted from eight inputs; of eight tokens, one would not be."""
    encoded = encode([Line("p", "1234567"), Line("p", "12345678")], encoding, 8)
    assert [scored(example) for example in encoded.examples] == [b"1234567."]
    assert encoded.examples[0].inputs.tolist() == [*b"p1234567"]
    assert encoded.dropped == 1


@given(st.text(max_size=60), st.integers(2, 20))
def test_a_long_text_goes_on_in_pieces_that_score_each_token_once(tokenizer, text, context):
    encoded = encode([Line(None, text)], load_encoding(tokenizer), context)
    assert sum(len(example.inputs) for example in encoded.examples) == len(text.encode()) + 1
    assert all(len(example.inputs) <= context for example in encoded.examples)
    assert [target for example in encoded.examples for target in example.targets] == [*text.encode(), END]


@given(st.lists(st.integers(1, 32), max_size=60))
def test_every_example_is_in_one_row_and_no_row_is_too_long(lengths):
    rows = pack(lengths, 32)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[place] for place in row) <= 32 for row in rows)


def test_rows_are_packed_tightly():
    lengths = np.random.default_rng(0).integers(4, 200, size=2000).tolist()
    assert len(pack(lengths, 256)) * 256 < 1.01 * sum(lengths)


def examples_of(encoding, count, context=32):
    random = np.random.default_rng(1)
    words = ["".join(random.choice([*"abcdef"], size=random.integers(1, 9))) for _ in range(2 * count)]
    return encode(map(Line, words[:count], words[count:]), encoding, context).examples


def test_an_epoch_has_each_example_once_and_its_order_is_a_function_of_seed_and_epoch(encoding):
    rows = Rows(examples_of(encoding, 40), 32, END, seed=3)
    epochs = [rows.batch(epoch * rows.count, rows.count).inputs for epoch in range(2)]
    assert rows.count > 4
    assert sorted(map(bytes, epochs[0])) == sorted(map(bytes, epochs[1]))
    assert len(set(map(bytes, epochs[0]))) == rows.count
    assert (epochs[0] != epochs[1]).any()
    again = Rows(examples_of(encoding, 40), 32, END, seed=3)
    pieces = [again.batch(place, 1).inputs for place in range(2 * rows.count)]
    assert (np.concatenate(pieces) == np.concatenate(epochs)).all()


def test_a_batch_scores_what_it_says_without_looking(encoding):
    rows = Rows(examples_of(encoding, 40), 32, END)
    for position in (0, 3, rows.count - 1):
        assert rows.batch(position, 4).scored == rows.scored(position, 4)
    batches, tokens = rows.in_order(3)
    assert (
        sum(batch.scored for batch in batches)
        == tokens
        == sum(np.count_nonzero(example.targets != IGNORED) for example in rows.examples)
    )
    some, tokens = rows.in_order(3, most=4)
    assert sum(batch.scored for batch in some) == tokens > 0


@pytest.mark.parametrize("shape", [MODERN, GPT2], ids=["modern", "gpt2"])
def test_examples_in_a_row_cost_what_they_cost_alone(encoding, shape):
    """No attention to the others, positions from 0: the loss of a row is the sum of its examples' own."""
    torch.manual_seed(0)
    config = GPTConfig(layers=2, heads=2, width=32, context=32, vocab_size=VOCAB, within_documents=True, **shape)
    model = GPT(config).eval()
    examples = examples_of(encoding, 12)
    rows = Rows(examples, 32, END)
    batch = rows.batch(0, rows.count)
    with torch.no_grad():
        together = float(model.loss(*map(torch.from_numpy, (batch.inputs, batch.targets, batch.documents))))
        pairs = [[torch.from_numpy(part)[None] for part in example] for example in examples]
        alone = sum(float(model.loss(*pair)) for pair in pairs)
    assert rows.count < len(examples)
    assert together == pytest.approx(alone, rel=1e-5)


def test_lines_are_held_out_by_their_prompt_whatever_lines_come_and_go():
    lines = [Line(f"question {number}", "answer") for number in range(1000)]
    train, held_out = split(lines, 0.1)
    assert 60 < len(held_out) < 140
    assert sorted(train + held_out) == sorted(lines)
    assert split(lines[500:], 0.1)[1] == [line for line in held_out if line in lines[500:]]
    other_answers = [line._replace(answer="other") for line in lines]
    assert [line.prompt for line in split(other_answers, 0.1)[1]] == [line.prompt for line in held_out]
    assert split(lines, 0.0)[1] == split(lines, 1.0)[0] == []


def test_lines_are_read_whatever_else_they_say(tmp_path):
    path = lines_file(tmp_path, {"prompt": "a", "answer": "b", "id": 7}, b"", {"text": "c\u2028d"})
    assert read(path) == [Line("a", "b"), Line(None, "c\u2028d")]


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path):
    path = lines_file(tmp_path, '{"text": "c\u2028d"}'.encode())
    assert read(path) == [Line(None, "c\u2028d")]


@pytest.mark.parametrize(
    "line",
    [
        b'{"prompt": "a", "answer":',
        b'{"prompt": "\xff", "answer": "b"}',
        b"[" * 100_000,
        ["a", "b"],
        {"prompt": "a"},
        {"answer": "a"},
        {"prompt": "a", "answer": ""},
        {"prompt": "a", "answer": 4},
        {"text": ""},
        {"text": None},
        {"text": "a", "prompt": "b", "answer": "c"},
    ],
    ids=range(11),
)
def test_a_line_that_is_no_example_is_named(tmp_path, line):
    path = lines_file(tmp_path, {"text": "good"}, line)
    with pytest.raises(TrainingError, match=r"data\.jsonl, line 2 (is no JSON|has neither)") as found:
        read(path)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_examples_is_refused(tmp_path, content):
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(TrainingError, match="has no example"):
        read(tmp_path / "data.jsonl")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="cannot be read"):
        read(tmp_path / "data.jsonl")


def test_the_digest_tells_what_is_trained_on_from_what_is_held_out(encoding):
    one, two = examples_of(encoding, 4), examples_of(encoding, 5)
    assert digest_of(one, two).digest() == digest_of(one, two).digest()
    assert len({digest_of(*parts).digest() for parts in ([one, two], [two, one], [one + two, []], [one])}) == 4
