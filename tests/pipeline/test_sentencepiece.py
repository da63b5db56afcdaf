"""SentencePiece and byte vocabularies: no byte of any text is lost, and no text gives a special token."""

import io
import random
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.config import BadInput
from pipeline.shards import ShardError, end_of_text, load_encoding, token_bytes, tokenizer_files
from pipeline.tokenizer import TokenizerConfig, tokenizer
from pipeline.vocabulary import sentencepiece as module
from pipeline.vocabulary.sentencepiece import SentencePieceEncoding, train
from tests.pipeline.test_tokenizer import CORPUS, write_parts

PIECES = {algorithm: train(CORPUS, 420, algorithm) for algorithm in ("bpe", "unigram")}
ENCODINGS = [SentencePieceEncoding(algorithm, pieces) for algorithm, pieces in PIECES.items()]

HARD = st.lists(st.sampled_from(["\u2581", "\u2585", "\u2047", " ", "\t", "\r\n", "\0", "mill"]) | st.text()).map(
    "".join
)
"""Texts with what SentencePiece uses for itself, or would change."""


def trained_elsewhere(texts: list[str], **options: object) -> bytes:
    """A model as SentencePiece makes it by default: NFKC, a space put in front, spaces removed."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=400,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS, ids=PIECES)
@given(text=HARD)
def test_ids_decode_to_the_text_and_their_bytes_are_those_of_the_text(
    encoding: SentencePieceEncoding, text: str
) -> None:
    ids = encoding.encode_ordinary(text)
    assert encoding.decode(ids) == text
    assert b"".join(map(encoding.decode_single_token_bytes, ids)) == text.encode()
    assert token_bytes(encoding)[ids].sum() == len(text.encode())


@pytest.mark.parametrize("encoding", ENCODINGS, ids=PIECES)
@given(text=st.lists(st.sampled_from(["<|endoftext|>", "<unk>", "<s>", "</s>", "<0x41>", " ", "a"])).map("".join))
def test_no_text_encodes_to_a_special_token(encoding: SentencePieceEncoding, text: str) -> None:
    special = {encoding.encode_single_token(name) for name in encoding.special_tokens_set}
    assert not special & set(encoding.encode_ordinary(text))
    assert encoding.decode(encoding.encode_ordinary(text)) == text


def test_half_a_surrogate_pair_is_replaced_as_tiktoken_replaces_it() -> None:
    for encoding in ENCODINGS:
        assert encoding.decode(encoding.encode_ordinary("a\ud800b\u2581")) == "a\ufffdb\u2581"


def test_words_of_the_corpus_become_pieces_with_their_space() -> None:
    for encoding in ENCODINGS:
        ids = encoding.encode_ordinary("grinds the grain of the river")
        assert b" the" in map(encoding.decode_single_token_bytes, ids)
        assert encoding.encode_to_numpy("the river").tolist() == encoding.encode_ordinary("the river")


@pytest.mark.parametrize("algorithm", list(PIECES))
def test_the_order_of_texts_makes_no_difference(algorithm: str) -> None:
    drawn = random.Random(0)
    words = ["".join(drawn.choices("aeioulnrst", k=drawn.randint(1, 7))) for _ in range(1_800)]
    texts = [" ".join(words[first : first + 30]) for first in range(0, len(words), 30)]
    assert train(texts, 420, algorithm) == train(texts[::-1], 420, algorithm)


@pytest.mark.parametrize("character", ["\u2581", "\u2585", "\0", "\t"])
def test_a_reserved_character_does_not_keep_its_text_from_training(character: str) -> None:
    encoding = SentencePieceEncoding("test", train([f"flour{character}flour flour\n" * 5], 300, "bpe"))
    assert encoding.encode_ordinary("flour")[0] >= 256


@given(text=HARD)
def test_a_given_model_is_made_to_leave_text_as_it_is(text: str) -> None:
    assert GIVEN.decode(GIVEN.encode_ordinary(text)) == text


GIVEN = SentencePieceEncoding("given", trained_elsewhere(CORPUS, byte_fallback=True) + module.AS_IT_IS)


def test_a_given_model_keeps_its_pieces(tmp_path: Path) -> None:
    path = tmp_path / "their.model"
    path.write_bytes(trained_elsewhere(CORPUS, byte_fallback=True))
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
    ours = SentencePieceEncoding("ours", module.given(path))
    # Theirs reads text as if a space came first.
    assert ours.encode_ordinary(" what the river brings") == theirs.encode("what the river brings")


@pytest.mark.parametrize("content", [b"no model", None, trained_elsewhere(CORPUS)], ids=["text", "missing", "no bytes"])
def test_a_model_that_cannot_hold_all_text_is_bad_input(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "given.model").write_bytes(content)
    with pytest.raises(BadInput, match=r"tokenizer\.model, .*given\.model, cannot be"):
        module.given(tmp_path / "given.model")


@pytest.mark.parametrize("algorithm", ["bpe", "unigram", "given"])
def test_the_stage_writes_files_that_load(algorithm: str, tmp_path: Path) -> None:
    documents, language = write_parts(tmp_path / "in", [CORPUS[:2], CORPUS[2:]])
    (out := tmp_path / "out").mkdir()
    given_model = None
    if algorithm == "given":
        (given_model := tmp_path / "their.model").write_bytes(trained_elsewhere(CORPUS, byte_fallback=True))
        config = TokenizerConfig(kind="sentencepiece", model=str(given_model))
    else:
        config = TokenizerConfig(kind="sentencepiece", vocab_size=420, algorithm=algorithm)
    stats = tokenizer(out=out, config=config, documents=documents, language=language, model=given_model)
    encoding = load_encoding(out)
    n_bytes, n_tokens = (
        sum(map(size, CORPUS)) for size in (lambda t: len(t.encode()), lambda t: len(encoding.encode_ordinary(t)))
    )
    assert sorted(out.iterdir()) == tokenizer_files(out) == [out / "sentencepiece.model", out / "tokenizer.json"]
    assert end_of_text(encoding) == encoding.n_vocab - 1 == stats["rows"] - 1
    assert stats["trained_bytes"] == (0 if given_model else n_bytes)
    assert stats["bytes_per_token"] == round(n_bytes / n_tokens, 4)


def test_more_characters_than_the_vocabulary_holds_are_bad_input() -> None:
    with pytest.raises(BadInput, match=r"change tokenizer\.vocab_size"):
        train(["".join(map(chr, range(0x4E00, 0x4F00)))], 300, "bpe")


def test_a_model_is_taken_for_sentencepiece_alone() -> None:
    with pytest.raises(ValidationError, match="needs kind"):
        TokenizerConfig(model="their.model")


def test_files_that_disagree_are_refused(tmp_path: Path) -> None:
    documents, language = write_parts(tmp_path / "in", [CORPUS])
    config = TokenizerConfig(kind="sentencepiece", vocab_size=420)
    tokenizer(out=tmp_path, config=config, documents=documents, language=language)
    (tmp_path / "sentencepiece.model").write_bytes(train(CORPUS, 400, "bpe"))
    with pytest.raises(ShardError, match=r"400 ids, tokenizer\.json says 420"):
        load_encoding(tmp_path)


@pytest.fixture(scope="module")
def plain_bytes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    documents, language = write_parts(tmp_path_factory.mktemp("in"), [CORPUS])
    out = tmp_path_factory.mktemp("out")
    stats = tokenizer(out=out, config=TokenizerConfig(kind="bytes"), documents=documents, language=language)
    assert stats == {"rows": 257, "trained_bytes": 0, "bytes_per_token": 1.0}
    return out


@given(text=st.text())
def test_with_bytes_the_ids_are_the_bytes(text: str, plain_bytes: Path) -> None:
    assert load_encoding(plain_bytes).encode_ordinary(text) == list(text.encode())
