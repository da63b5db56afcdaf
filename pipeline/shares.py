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
    tables = []
    for part in range(len(corpus)):
        table = corpus.packed(part).select(["url", "source", "language", "license", "tokens"])
        tables.append(table.append_column("host", hosts(table["url"])).drop_columns("url"))
    packed = pa.concat_tables(tables)
    for kind in KINDS:
        packed = packed.set_column(packed.column_names.index(kind), kind, pc.fill_null(packed[kind], ""))
    return {kind: _by(packed, kind) for kind in KINDS}


def _by(packed: pa.Table, kind: str) -> dict[str, Share]:
    counted = packed.group_by(kind).aggregate([("tokens", "count"), ("tokens", "sum")])
    columns = (counted[name].to_pylist() for name in (kind, "tokens_count", "tokens_sum"))
    found = {name: Share(documents, tokens) for name, documents, tokens in zip(*columns, strict=True)}
    return dict(sorted(found.items(), key=lambda item: (-item[1].tokens, item[0])))
