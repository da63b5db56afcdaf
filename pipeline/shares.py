"""What a corpus is made of: its documents and tokens by host, source, language or licence."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import Corpus
from pipeline.tombstones import hosts

KINDS = ("host", "source", "language", "license")


class Share(NamedTuple):
    """Documents of a corpus, and their tokens; end-of-text is left out."""

    documents: int
    tokens: int


NOTHING = Share(0, 0)


def shares(corpus: Corpus) -> dict[str, dict[str, Share]]:
    """{kind: {name: share}} of what is packed, for each of `KINDS`, most tokens first; "" is what has no name."""
    counted: dict[str, list[pa.Table]] = {kind: [] for kind in KINDS}
    for part in range(len(corpus)):
        packed = corpus.packed(part)
        packed = packed.append_column("host", hosts(packed["url"]))
        for kind in KINDS:
            table = pa.table([pc.fill_null(packed[kind], ""), packed["tokens"]], ["name", "tokens"])
            counted[kind].append(table.group_by("name").aggregate([("tokens", "count"), ("tokens", "sum")]))
    return {kind: _together(tables) for kind, tables in counted.items()}


def _together(parts: list[pa.Table]) -> dict[str, Share]:
    sums = [("tokens_count", "sum"), ("tokens_sum", "sum")]
    names, documents, tokens = (c.to_pylist() for c in pa.concat_tables(parts).group_by("name").aggregate(sums).columns)
    found = {name: Share(*counts) for name, *counts in zip(names, documents, tokens, strict=True)}
    return dict(sorted(found.items(), key=lambda item: (-item[1].tokens, item[0])))
