"""A corpus as one run left it: its documents beside every ledger, and what became of each of them.

A document's *fate* is one stage and one reason: the stage that dropped it, or `pack` where it is in the corpus. What
never became a document has a fate too: a URL that gave no page at `scrape`, a page that gave no document at `extract`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.contamination import CONTAMINATION_FILE
from pipeline.counts import NO_TEXT
from pipeline.crawl.seal import INDEX
from pipeline.crawl.spool import ABOUT_SITE, REVISIT, STORED
from pipeline.deduplicate import DEDUPLICATE_FILE
from pipeline.documents import DOC_ID, read_ledger, read_table
from pipeline.engine.store import Artifact
from pipeline.select import SELECT_FILE
from pipeline.shards import TOKENIZER_FILE, Split, dtype_for, ids_path

PACKED = "pack"
"""The stage of a document's fate that is in the corpus."""

DUPLICATE = "duplicate"
EXACT_DUPLICATE = "exact_duplicate"
"""Why `deduplicate` drops a document; the second where the two have all shingles in common."""

FATES = pa.schema(
    [
        ("doc_id", DOC_ID),
        ("url", pa.string()),
        ("source", pa.string()),
        ("snapshot", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("language", pa.string()),
        ("license", pa.string()),
        ("title", pa.string()),
        ("tokens", pa.int64()),
        ("duplicate_of", DOC_ID),
        ("similarity", pa.float32()),
        ("text", pa.string()),
    ]
)
"""One row a document, or a page or URL that gave none. `stage` is null where nothing has decided yet, `reason` where
the document is in the corpus; `snapshot` is "<source>/<sequence>"; `tokens` leaves the end-of-text out."""

LEDGER_FILES = {
    "language": "language.arrow",
    "quality": "quality.arrow",
    "contamination": CONTAMINATION_FILE,
    "select": SELECT_FILE,
    "deduplicate": DEDUPLICATE_FILE,
    "tokenize": "spans.arrow",
}


@dataclass(frozen=True)
class Corpus:
    """The artifacts of one run, and the folders of the snapshots that it saw, in the order of the corpus."""

    artifacts: Mapping[str, Artifact]
    snapshots: tuple[Path, ...]

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self.artifacts["extract"].parts)

    def folder(self, stage: str, part: int) -> Path:
        """Where the stage's output for a part lies."""
        return self.artifacts[stage].parts[part].folder

    def snapshot_of(self, part: int) -> str:
        """The snapshot that a part comes from, "<source>/<sequence>"."""
        return self.artifacts["extract"].parts[part].snapshot

    def snapshot_folder(self, part: int) -> Path | None:
        """Where that snapshot lies; None where the run does not tell that it saw it."""
        name = self.snapshot_of(part)
        return next((folder for folder in self.snapshots if f"{folder.parent.name}/{folder.name}" == name), None)

    def documents(self, part: int, columns: list[str]) -> pa.Table:
        """Columns of a part's documents."""
        return read_table(self.folder("extract", part) / "documents.arrow", columns)

    def ledger(self, stage: str, part: int, doc_ids: pa.ChunkedArray, columns: list[str]) -> pa.Table | None:
        """Columns of a part's ledger in the rows of its documents; None where the run has no such stage."""
        if stage not in self.artifacts:
            return None
        return read_ledger(self.folder(stage, part) / LEDGER_FILES[stage], doc_ids, columns)

    def vocab_size(self) -> int:
        """How many ids the run's tokenizer has."""
        return int(json.loads((self.artifacts["tokenizer"].path / TOKENIZER_FILE).read_bytes())["vocab_size"])

    def borders(self, split: Split) -> list[int]:
        """Where each part's ids begin in the stream of a split, and last where the stream ends."""
        width = dtype_for(self.vocab_size()).itemsize
        sizes = [ids_path(part.folder, split).stat().st_size // width for part in self.artifacts["pack"].parts]
        return [0, *np.cumsum(sizes, dtype=np.int64).tolist()]

    def fates(self, part: int, *, texts: bool = True) -> pa.Table:
        """What became of each document of a part, as `FATES` has it; without `texts` the texts are null."""
        columns = ["doc_id", "url", "source", "license", "title", *(["text"] if texts else [])]
        table = self.documents(part, columns)
        rows, doc_ids = len(table), table["doc_id"]
        found: dict[str, Any] = {name: table[name] for name in columns}
        found["snapshot"] = pa.array([self.snapshot_of(part)] * rows, pa.string())
        language = self.ledger("language", part, doc_ids, ["language"])
        if language is not None:
            found["language"] = language["language"]
        stage = reason = pa.nulls(rows, pa.string())
        spans = self.ledger("tokenize", part, doc_ids, ["length"])
        if spans is not None:
            found["tokens"] = spans["length"].cast(pa.int64())
        if "pack" in self.artifacts and spans is not None:
            packed = pc.greater(spans["length"], 0)
            stage = pc.if_else(packed, PACKED, "tokenize")
            reason = pc.if_else(packed, pa.scalar(None, pa.string()), NO_TEXT)
        unique = self.ledger("deduplicate", part, doc_ids, ["keep", "duplicate_of", "similarity"])
        if unique is not None:
            found |= {name: unique[name] for name in ("duplicate_of", "similarity")}
            kind = pc.if_else(pc.equal(unique["similarity"], 1), EXACT_DUPLICATE, DUPLICATE)
            stage = pc.if_else(unique["keep"], stage, "deduplicate")
            reason = pc.if_else(unique["keep"], reason, kind)
        selected = self.ledger("select", part, doc_ids, ["keep", "reason", "detail"])
        if selected is not None:
            stage = pc.if_else(selected["keep"], stage, "select")
            reason = pc.if_else(selected["keep"], reason, selected["reason"])
            found["detail"] = selected["detail"]
        return _table(rows, {**found, "stage": stage, "reason": reason})

    def packed(self, part: int) -> pa.Table:
        """The documents of a part that are in the corpus, as `FATES` has them without texts."""
        table = self.fates(part, texts=False)
        return table.filter(pc.equal(table["stage"], PACKED))

    def rejects(self, part: int) -> pa.Table:
        """The pages of a part that gave no document, as `FATES` has it."""
        table = read_table(self.folder("extract", part) / "rejects.arrow")
        whole = self.artifacts["extract"].parts[part]
        said = {name: table[name] for name in ("url", "reason", "detail")}
        constant = {"stage": "extract", "source": whole.source, "snapshot": whole.snapshot}
        return _table(len(table), said | _repeated(constant, len(table)))

    def unstored(self, snapshot: Path) -> pa.Table:
        """The URLs of a snapshot that gave no page, as `FATES` has it: files about the site are left out."""
        table = read_table(snapshot / INDEX, ["url", "outcome", "detail", "license"])
        table = table.filter(pc.invert(pc.is_in(table["outcome"], pa.array([STORED, REVISIT, *ABOUT_SITE]))))
        said = {"url": table["url"], "reason": table["outcome"], "detail": table["detail"], "license": table["license"]}
        constant = {"stage": "scrape", "snapshot": f"{snapshot.parent.name}/{snapshot.name}"}
        return _table(len(table), said | _repeated(constant, len(table)))

    def everything(self, *, texts: bool = True) -> Iterator[pa.Table]:
        """Every URL, page and document with its fate, table by table."""
        for snapshot in self.snapshots:
            yield self.unstored(snapshot)
        for part in range(len(self)):
            yield self.rejects(part)
            yield self.fates(part, texts=texts)


def _repeated(values: dict[str, str], rows: int) -> dict[str, pa.Array]:
    return {name: pa.array([value] * rows, pa.string()) for name, value in values.items()}


def _table(rows: int, columns: dict[str, Any]) -> pa.Table:
    """A table of these columns in the order of `FATES`, the others null."""
    return pa.table([columns.get(name, pa.nulls(rows, FATES.field(name).type)) for name in FATES.names], schema=FATES)
