"""Rows of given tables, JSONL and Parquet: each with its number from 0, or what is wrong with it."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.config import BadInput

MAX_LINE_BYTES = 256 * 1024 * 1024
"""Of one line of JSONL; four times what a text may have, for the rest of the row and for escapes."""

DAMAGED_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
"""What reading from `opened` raises where a .gz file is damaged."""

_PARQUET_BATCH = 1024

TableRow = tuple[int, dict[str, Any] | str]
"""A row with its number from 0, or what is wrong with it."""


def jsonl_rows(file: Path) -> Iterator[TableRow]:
    """Rows of a JSONL file, .gz or not; BadInput where the system will not read it."""
    with opened(file) as handle:
        number = -1
        while True:
            number += 1
            try:
                line = handle.readline(MAX_LINE_BYTES)
                if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                    while (rest := handle.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield number, f"longer than {MAX_LINE_BYTES} bytes"
                    continue
            except DAMAGED_GZIP as problem:
                yield number, f"cannot be read, nor what follows: {problem}"
                return
            except OSError as problem:
                raise BadInput(f"{file} cannot be read: {problem}.") from None
            if not line:
                return
            if line.strip():
                yield number, _json_object(line)


def _json_object(line: bytes) -> dict[str, Any] | str:
    """A line's object, or why it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as problem:
        return f"not valid JSON: {problem}"
    return row if isinstance(row, dict) else "not a JSON object"


def parquet_rows(file: Path, text_field: str, url_field: str) -> Iterator[TableRow]:
    """Rows of a Parquet file with these two fields; BadInput where it has no such text, or is no Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as table:
            names = table.schema_arrow.names
            if text_field not in names:
                raise BadInput(f"{file}: there is no column {text_field!r}; set text_field.")
            columns = [name for name in (text_field, url_field) if name in names]
            for batch in table.iter_batches(batch_size=_PARQUET_BATCH, columns=columns):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
    except (pa.ArrowException, OSError) as problem:
        said = " ".join(str(problem).split())
        if number == 0:
            raise BadInput(f"{file} is not a readable Parquet file: {said}.") from None
        yield number, f"cannot be read, nor what follows: {said}"


def opened(file: Path) -> BinaryIO:
    """The bytes of a file, decompressed where its name ends in .gz."""
    return cast(BinaryIO, gzip.open(file, "rb")) if file.suffix.lower() == ".gz" else file.open("rb")
