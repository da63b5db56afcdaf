"""Two runs side by side: their settings, where their text came from, what became of it, and what is left of it."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.compute as pc

from flows import stages
from flows.comparison.diff import SECTIONS, training_start
from flows.comparison.layout import UNKNOWN, Row, Section
from flows.comparison.scores import curves, scores
from flows.runs import Run, artifacts, corpus_of, manifests
from pipeline import diff as comparing
from pipeline.corpus import PACKED, Corpus
from pipeline.counts import funnel
from pipeline.engine.store import Store
from pipeline.shards import TokenShards, load_encoding
from pipeline.shares import KINDS, NOTHING, shares
from pipeline.summary import as_duration, as_words, flat

Manifests = dict[str, dict[str, Any]]

CALLED = {"license": "licence"}

NAMED = 8
"""Hosts, languages and so on that have a row of their own; the others share one."""

NAMED_UNITS = 2
"""Functions that differ which are named."""

SCORED_CHARACTERS = 4_000
"""Of a text that both models score, how much: a long one tells little more than its beginning."""


def compare_runs(store: Store, a: Run, b: Run) -> list[Section]:
    """The sections on two runs, both of which packed a corpus."""
    told, corpora = [manifests(store, run) for run in (a, b)], [corpus_of(store, run) for run in (a, b)]
    settings = list(_settings(*told))
    return [
        Section("The runs", list(_about(store, a, b))),
        Section("What they were told", settings, "" if settings else "Settings, code and tools are the same."),
        Section("Where the text came from", list(_sources(*told))),
        Section("The corpus", [*_steps(*told), *_in_common(*corpora)]),
        Section("Removed, by stage and reason", list(_removed(*told))),
        *_shares(*corpora),
        curves(*corpora),
        scores(*corpora),
    ]


def held_out_texts(store: Store, a: Run, b: Run, most: int) -> list[str]:
    """The beginnings of so many documents that both runs hold out, as the first packed them; drawn by their ids."""
    corpora = [corpus_of(store, run) for run in (a, b)]
    held_out = [
        TokenShards.open([part.folder for part in corpus.artifacts[PACKED].parts], "val", corpus.vocab_size())
        for corpus in corpora
    ]
    first, second = (shards.index() for shards in held_out)
    shared = first.filter(pc.is_in(first["doc_id"], second["doc_id"].combine_chunks())).sort_by("doc_id")
    encoding = load_encoding(corpora[0].artifacts["tokenizer"].path)
    places = shared.slice(0, most).select(["start", "length"]).to_pylist()
    texts = (encoding.decode(held_out[0].window(row["start"], row["length"] - 1).tolist()) for row in places)
    return [text[:SCORED_CHARACTERS] for text in texts]


def _about(store: Store, *both: Run) -> Iterator[Row]:
    """When and how each was started, and what gc took of it since."""
    yield _row("run", (run.id for run in both))
    yield _row("config", (run.config for run in both))
    yield _row("started", (time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(run.started)) for run in both))
    yield _row("took", (UNKNOWN if run.seconds is None else as_duration(run.seconds) for run in both))
    yield _row("status", (run.status for run in both))
    yield _row("stages that ran", (", ".join(run.ran) or "none" for run in both))
    gone = [sorted(run.stages.keys() - {"scrape"} - artifacts(store, run).keys()) for run in both]
    if any(gone):
        yield _row("collected by gc since", (", ".join(names) or "nothing" for names in gone))


def _settings(a: Manifests, b: Manifests) -> Iterator[Row]:
    """The settings that shape bytes, the tools and the code that differ, of stages that both ran."""
    for stage in stages.BY_NAME:
        documents = [told[stage]["key_document"] for told in (a, b) if "key_document" in told.get(stage, {})]
        if len(documents) == 2:
            section = SECTIONS.get(stage, stage)
            yield from _differing(*({f"{section}.{k}": v for k, v in flat(d["config"]).items()} for d in documents))
            yield from _differing(*({f"{tool} ({stage})": v for tool, v in d["tools"].items()} for d in documents))
            units = sorted({unit for unit, _ in set(documents[0]["code"].items()) ^ set(documents[1]["code"].items())})
            if units:
                more = f" and {len(units) - NAMED_UNITS:,} more" if len(units) > NAMED_UNITS else ""
                yield Row(f"code of {stage}", ("", f"differs in {', '.join(units[:NAMED_UNITS])}{more}"))
            yield from _differing(*({"training starts from": training_start(told[stage])} for told in (a, b)))


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Row]:
    for name in dict.fromkeys([*a, *b]):
        if a.get(name) != b.get(name):
            yield Row(name, (_shown(a.get(name)), _shown(b.get(name))))


def _shown(value: Any) -> str:
    return "unset" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sources(a: Manifests, b: Manifests) -> Iterator[Row]:
    """The snapshots of each source."""
    both = [told.get("scrape", {}).get("snapshots", []) for told in (a, b)]
    for name in dict.fromkeys(seal["name"] for seals in both for seal in seals):
        yield _row(name, (_snapshots([seal for seal in seals if seal["name"] == name]) for seals in both))


def _snapshots(seals: list[dict[str, Any]]) -> str:
    if not seals:
        return "no source"
    last = max(seal["sealed_at"] for seal in seals)[:10]
    count = "1 snapshot" if len(seals) == 1 else f"{len(seals)} snapshots"
    return f"{count} to {last}, {sum(seal['rows'] for seal in seals):,} pages"


def _steps(a: Manifests, b: Manifests) -> Iterator[Row]:
    """The counts from URLs to tokens."""
    funnels = [{row.name: f"{row.count:,}" for row in funnel(told)} for told in (a, b)]
    for name in dict.fromkeys([*funnels[0], *funnels[1]]):
        yield _row(name, (each.get(name, UNKNOWN) for each in funnels))
    for split, name in (("train", "Tokens to train on"), ("val", "Tokens held out")):
        yield _row(name, (f"{told[PACKED]['stats']['tokens'][split]:,}" for told in (a, b)))


def _in_common(a: Corpus, b: Corpus) -> Iterator[Row]:
    """Which packed documents each has alone, and which both have."""
    found = comparing.corpora(a, b)
    yield Row("Only in this one", (_size(found["lost"]), _size(found["gained"])))
    yield Row("In both", (_size(found["unchanged"]),) * 2)
    if found["changed"]["documents"]:
        yield Row("In both, with other text", (_size(found["changed"]),) * 2)


def _size(found: Mapping[str, Any]) -> str:
    return _amount(found["documents"], found["tokens"] or 0)


def _amount(documents: int, tokens: int) -> str:
    return (
        f"{tokens:,} tokens in {documents:,} {'document' if documents == 1 else 'documents'}"
        if documents
        else "nothing"
    )


def _removed(a: Manifests, b: Manifests) -> Iterator[Row]:
    """Why URLs, pages and documents are not in the corpus, in the order of the funnel, the most frequent first."""
    both: list[dict[str, int]] = [
        {f"{row.stage}: {as_words(reason)}": count for row in funnel(told) for reason, count in row.lost.items()}
        for told in (a, b)
    ]
    for name in dict.fromkeys([*both[0], *both[1]]):
        yield _row(name, (f"{each.get(name, 0):,}" for each in both))


def _shares(a: Corpus, b: Corpus) -> Iterator[Section]:
    """Documents and tokens by host, source, language and licence, of the largest in either."""
    both = [shares(corpus) for corpus in (a, b)]
    same = [kind for kind in KINDS if both[0][kind] == both[1][kind]]
    for kind in KINDS:
        if kind not in same:
            one, other = (each[kind] for each in both)
            names = sorted(
                {*one, *other}, key=lambda name: -max(each.get(name, NOTHING).tokens for each in (one, other))
            )
            rows = [
                _row(name or "none", (_amount(*each.get(name, NOTHING)) for each in (one, other))) for name in names
            ]
            more = f"and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
            yield Section(f"Packed, by {CALLED.get(kind, kind)}", rows[:NAMED], more)
    if same:
        yield Section(f"Packed, by {', '.join(CALLED.get(kind, kind) for kind in same)}", [], "The same in both.")


def _row(what: str, values: Any) -> Row:
    first, second = values
    return Row(what, (first, second))
