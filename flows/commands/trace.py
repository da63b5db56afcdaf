"""`gptmill trace`: where a token came from, and what became of a page, for people and as JSON."""

import argparse
import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.text import Text

from flows.display import printable
from flows.runs import Run, corpus_of
from pipeline import trace as tracing
from pipeline.corpus import Corpus
from pipeline.engine.store import Store
from pipeline.takedowns import naming

Row = dict[str, Any]

NOT_FOUND = 1

LABEL_WIDTH = 15
NAMED_COPIES = 3
NAMED_TOKENS = 5
"""Copies, and occurrences of a text, that are named; `--json` has more."""


def trace(store: Store, run: Run, options: argparse.Namespace) -> bool:
    """Print what is asked for of a run; whether anything was found."""
    found = {"run": run.id, **_found(corpus_of(store, run), options)}
    urls = [row["url"] for kind in ("documents", "visits", "rejects") for row in found[kind]]
    found["takedowns"] = naming(store.tombstones, urls)
    if options.json:
        print(json.dumps(found, indent=1))  # noqa: T201  (the command's result)
    else:
        console = Console(highlight=False, soft_wrap=True, markup=False)
        for line in _lines(found):
            console.print(line)
    return bool(found["documents"] or found["visits"] or found["rejects"])


def _found(corpus: Corpus, options: argparse.Namespace) -> Row:
    found: Row = {"documents": [], "visits": [], "rejects": []}
    if options.token is not None:
        place, token = tracing.place_of_token(corpus, options.split, options.token)
        return {**found, "token": token, "documents": [tracing.document(corpus, place)]}
    if options.text is not None:
        places, count = tracing.places_of_text(corpus, options.text, options.limit)
        documents = [{**tracing.document(corpus, place), "occurrences": tokens} for place, tokens in places]
        return {**found, "text": options.text, "count": count, "documents": documents}
    place_of_id = tracing.place_of_id(corpus, bytes.fromhex(options.what)) if is_doc_id(options.what) else None
    if place_of_id is not None:
        return {**found, "documents": [tracing.document(corpus, place_of_id)]}
    places_of_url = tracing.places_of_url(corpus, options.what)
    return {
        "documents": [tracing.document(corpus, place) for place in places_of_url],
        "visits": tracing.visits(corpus, options.what),
        "rejects": tracing.rejects(corpus, options.what),
    }


def is_doc_id(text: str) -> bool:
    """Whether a text is written as a document's id is: 32 hex digits."""
    return len(text) == 32 and all(digit in "0123456789abcdef" for digit in text)


def _lines(found: Row) -> Iterator[Text]:
    yield Text(f"in the run {found['run']}", "dim")
    if token := found.get("token"):
        before, text, after = (printable(token[name]) for name in ("before", "text", "after"))
        yield Text(f"token {token['token']:,} of {token['split']}, id {token['id']}", "bold")
        yield Text.assemble("  …", before, (text, "reverse"), after, "…")
        yield Text(f"  it is token {token['token_of_document']:,} of")
    if "text" in found:
        yield Text(f"{found['count']:,} documents hold that text", "bold")
    for document in found["documents"]:
        yield Text()
        yield from _document_lines(document)
    for visit in found["visits"]:
        yield Text()
        yield from _visit_lines(visit)
    for reject in found["rejects"]:
        yield _line("extract", f"gave no document: {reject['reason']} {reject['detail'] or ''}")
    for takedown in found["takedowns"]:
        yield _line("taken down", f"{takedown['at']}: {takedown['reason']} (takedown {takedown['takedown']})")
    if not (found["documents"] or found["visits"] or found["rejects"]):
        yield Text(f"Nothing of it is in the run {found['run']}.")


def _document_lines(document: Row) -> Iterator[Text]:
    yield Text(printable(document["url"]), "bold")
    if document["title"]:
        yield _line("title", document["title"])
    yield _line("document", document["doc_id"])
    yield _line("source", f"{document['source']}, snapshot {document['snapshot'].rpartition('/')[2]}")
    yield _line("fetched", document["fetched_at"] or "nobody knows when: it was given")
    yield _line("licence", document["license"] or "none stated")
    for stage, row in document["ledgers"].items():
        yield _line(stage, _in_words(stage, row, document))
    for place in document["tokens"]:
        end, file_end = place["token"] + place["length"] - 1, place["start"] + place["length"] - 1
        yield _line("tokens", f"{place['split']} {place['token']:,} to {end:,}, end-of-text included")
        yield _line("", f"in {place['file']} {place['start']:,} to {file_end:,}")
    for place in document.get("occurrences", [])[:NAMED_TOKENS]:
        yield _line("found at", f"{place['split']} {place['token']:,}, {place['tokens']:,} tokens")
    if (more := len(document.get("occurrences", [])) - NAMED_TOKENS) > 0:
        yield _line("", f"and {more:,} more times")


def _visit_lines(visit: Row) -> Iterator[Text]:
    """What one snapshot says of a URL."""
    yield Text(f"in snapshot {visit['snapshot'].rpartition('/')[2]}: {printable(visit['url'])}", "bold")
    told = f"{visit['outcome']} (status {visit['status']})" + (f": {visit['detail']}" if visit["detail"] else "")
    yield _line("scrape", f"{told}, {visit['fetched_at'] or 'at an unknown time'}")
    for name, label in (("requested_url", "redirected from"), ("robots", "robots"), ("license", "licence")):
        if visit[name]:
            yield _line(label, visit[name])


def _in_words(stage: str, row: Row, document: Row) -> str:
    """A ledger's row in one line."""
    match stage:
        case "language":
            return f"{row['language']} with probability {row['score']:.2f}, {'' if row['wanted'] else 'not '}wanted"
        case "quality":
            if row["gopher_words"] is None:
                return "not scored: its language is not wanted"
            return f"{row['gopher_words']:,} words, {row['c4_sentences']:,} sentences; --json has all scores"
        case "contamination":
            most = f"{row['overlap']:.2f} of item {row['item']} of {row['set']}"
            return "no overlap with an evaluation set" if row["set"] is None else f"holds {most}"
        case "select":
            return "kept" if row["keep"] else f"dropped: {row['reason']}{_bounds(row)} {row['detail'] or ''}".rstrip()
        case "deduplicate":
            if row["duplicate_of"]:
                return f"dropped: duplicate of {row['duplicate_of_url']}, similarity {row['similarity']:.2f}"
            copies = document["copies"]
            named = ", ".join(copy["url"] for copy in copies["named"][:NAMED_COPIES])
            told = f"kept; {copies['count']:,} dropped for it: {named}" if copies["count"] else "kept"
            return told if row["keep"] else "not asked"
        case "tokenize":
            replaced = ", ".join(f"{count} {kind}" for kind, count in row["pii"].items())
            told = f"{row['length']:,} tokens of {row['n_bytes']:,} bytes"
            return f"{told}; replaced: {replaced}" if replaced else told
    return json.dumps(row)


def _bounds(row: Row) -> str:
    if "score" not in row:
        return ""
    bounds = [f"{name} {row[name]}" for name in ("min", "max") if row.get(name) not in (None, False)]
    return f", it has {row['score']:.4g} ({', '.join(bounds)})" if bounds else ""


def _line(label: str, text: str) -> Text:
    return Text.assemble((f"  {label:<{LABEL_WIDTH}}", "dim"), printable(text))
