"""The datasheet of a run: what a third party must know of a corpus and its model, as far as the mill knows it.

It goes through what "Datasheets for Datasets" asks (Gebru et al., arXiv:1803.09010): why, what, how collected, how
processed, for what, how passed on, how kept up. What nobody told the mill is null here and "not known" in the text.
"""

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from pydantic import BaseModel

from flows.commands.evaluate import Figure, figures
from flows.comparison.diff import SECTIONS
from flows.config import MillConfig
from flows.display import printable
from flows.runs import Run, as_json, corpus_of, manifests
from pipeline.config import identity
from pipeline.corpus import PACKED, Corpus
from pipeline.counts import funnel
from pipeline.crawl.seal import INDEX
from pipeline.documents import read_table
from pipeline.engine.store import Store, read_object
from pipeline.select import RULES
from pipeline.shares import KINDS, shares
from pipeline.sources import CrawlSource, Source
from pipeline.summary import as_count, as_number, as_words

FORMAT = 1
"""Of datasheet.json: what its fields are called."""

TEMPLATE = Path(__file__).with_name("datasheet.md.jinja")

PROCESSING = (
    "extract",
    "language",
    "quality",
    "signatures",
    "contamination",
    "select",
    "deduplicate",
    "tokenizer",
    "tokenize",
    PACKED,
)
"""Stages whose settings say how pages became tokens."""

MOST_NAMED = 100
"""Hosts, licences and so on that are told by name; `data/documents.parquet` has them all."""

Facts = dict[str, Any]
Manifests = Mapping[str, Mapping[str, Any]]


def facts(store: Store, run: Run) -> Facts:
    """All facts, as plain JSON; `files` are added by who writes them."""
    told, corpus = manifests(store, run), corpus_of(store, run)
    pack = told[PACKED]["stats"]
    return {
        "format": FORMAT,
        "run": {name: as_json(store, run)[name] for name in ("run", "names", "config", "started", "seconds")},
        "motivation": {"purpose": None, "creators": None, "funding": None},
        "composition": {
            **{name: pack[name] for name in ("documents", "tokens", "bytes")},
            **_largest(corpus),
            "duplicates": told["deduplicate"]["stats"]["duplicates"],
            "overlapping_with_evaluation_sets": told["contamination"]["stats"]["sets"],
            "consent_of_authors": None,
            "people_described": None,
        },
        "collection": {"sources": _sources(corpus, told, config_of(run))},
        "processing": {
            "steps": [{"step": row.name, "count": row.count, "removed_next": row.lost} for row in funnel(told)],
            "personal_data": {
                "replaced_by": _config(told, "tokenize")["pii"],
                "places_replaced": told["tokenize"]["stats"]["pii"],
                "documents_tokenized": told["tokenize"]["stats"]["documents"],
            },
            "settings": {stage: _described(told, stage) for stage in PROCESSING if stage in told},
            "warnings": [
                f"{stage}: {text}" for stage, each in told.items() for text in each["stats"].get("warnings", ())
            ],
        },
        "model": _model(store, told),
        "evaluation": _evaluation(corpus),
        "distribution": {"licence_of_this_folder": None, "restrictions": None},
        "maintenance": {"maintainer": None, "takedowns_applied": _takedowns(told)},
        "made_with": {
            "exported_by": f"gptmill {metadata.version('gptmill')}",
            "python": sorted({each["run"]["python"] for each in told.values() if "python" in each.get("run", {})}),
            "stages": [
                {
                    "stage": stage,
                    "digest": row["digest"],
                    **{name: told[stage].get(name) for name in ("implementation", "tools")},
                }
                for stage, row in run.stages.items()
                if stage in told
            ],
        },
    }


def as_markdown(found: Facts) -> str:
    """The facts for people."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701  (no HTML)
    environment.filters.update(count=as_count, number=as_number, words=as_words, cell=_cell, value=_value)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(**found, scored=scored(found["evaluation"]), kinds=KINDS)
    return text.encode("utf-8", "replace").decode()


def config_of(run: Run) -> MillConfig | None:
    """The config that the run had; None where its log does not tell, or where it is none of today's."""
    try:
        return MillConfig.model_validate_json(json.dumps(run.settings)) if run.settings else None
    except ValueError:
        return None


def _largest(corpus: Corpus) -> Facts:
    """The shares of each kind, those with most tokens; the `others` of each are counted together."""
    told: Facts = {"others": {}}
    for kind, found in shares(corpus).items():
        told[kind] = [{"name": name, **share._asdict()} for name, share in list(found.items())[:MOST_NAMED]]
        others = list(found.values())[MOST_NAMED:]
        told["others"][kind] = {
            "names": len(others),
            "documents": sum(share.documents for share in others),
            "tokens": sum(share.tokens for share in others),
        }
    return told


def _sources(corpus: Corpus, told: Manifests, config: MillConfig | None) -> list[Facts]:
    """Each source with what it was asked for, as far as the run's log tells, and its snapshots, oldest first."""
    asked = {} if config is None else {source.name: _asked(source) for source in config.scrape.sources}
    folders = {(folder.parent.name, int(folder.name)): folder for folder in corpus.snapshots}
    found: dict[str, Facts] = {}
    for seal in told.get("scrape", {}).get("snapshots", []):
        source = asked.get(seal["name"], {})
        known = found.setdefault(
            seal["name"], {"name": seal["name"], "id": seal["source"], "asked": source, "snapshots": []}
        )
        known["snapshots"].append(_snapshot(folders[seal["source"], seal["sequence"]], seal))
    return list(found.values())


def _asked(source: Source) -> Facts:
    """What shapes a source, but what it tells of the network of whoever crawled."""
    told = identity(source)
    if isinstance(source, CrawlSource):
        del told["private_hosts"]
        told["seeds_from_file"] = source.seeds_file is not None
    return told


def _snapshot(folder: Path, seal: Mapping[str, Any]) -> Facts:
    seen = pc.min_max(read_table(folder / INDEX, ["fetched_at"])["fetched_at"]).as_py()
    first, last = (None if seen[end] is None else seen[end].isoformat(timespec="seconds") for end in ("min", "max"))
    return {
        **{name: seal[name] for name in ("sequence", "digest", "sealed_at")},
        **{name: seal["stats"][name] for name in ("urls", "pages", "outcomes")},
        "first_fetched": first,
        "last_fetched": last,
        "purged": [hole["takedown"] for hole in seal.get("holes", [])],
    }


def _config(told: Manifests, stage: str) -> Facts:
    config: Facts = told[stage]["key_document"]["config"]
    return config


def _described(told: Manifests, stage: str) -> list[Facts]:
    """The settings of a stage that shape bytes: name, value, meaning, and whether it had any effect."""
    section = SECTIONS.get(stage, stage)
    config, model = _config(told, stage), MillConfig.model_fields[section].annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    idle = _idle(config) if stage == "select" else set()
    # As they are described, each after what it refers to; last what an older gptmill had.
    ordered = [
        *(name for name in model.model_fields if name in config),
        *sorted(config.keys() - model.model_fields.keys()),
    ]
    return [
        {
            "setting": f"{section}.{name}",
            "value": config[name],
            "meaning": _meaning(model, name),
            "in_effect": name not in idle,
        }
        for name in ordered
    ]


def _idle(policy: Facts) -> set[str]:
    """The cut-offs of the groups of rules that were not applied."""
    columns = [column for group, rules in RULES.items() if group not in policy["rules"] for column in rules]
    return {f"{bound}_{column}" for bound in ("min", "max", "drop") for column in columns}


def _meaning(model: type[BaseModel], name: str) -> str:
    field = model.model_fields.get(name)
    return " ".join((field.description or "").split()) if field else ""


def _model(store: Store, told: Manifests) -> Facts | None:
    """The shape, the training, its settings, and what it went on from; None where nothing was trained."""
    if "pretrain" not in told:
        return None
    stats = told["pretrain"]["stats"]
    return {
        **{name: stats[name] for name in ("parameters", "steps", "epochs", "val_loss", "hardware")},
        "tokens_seen": stats["rows"],
        "went_on_from": _earlier(store, told["pretrain"]["inputs"]),
        "settings": _described(told, "pretrain"),
    }


def _earlier(store: Store, made_from: Mapping[str, Any]) -> Facts | None:
    """The checkpoint that a training went on from, and whether it had the same corpus, which is null where the store
    has forgotten; None where training started from nothing.
    """
    if "start" not in made_from:
        return None
    checkpoint = made_from["start"]
    shards = (store.manifest("pretrain", checkpoint["key"]) or {}).get("inputs", {}).get("shards")
    same = None if shards is None else shards["digest"] == made_from["shards"]["digest"]
    return {"key": checkpoint["key"], "digest": checkpoint["digest"], "same_corpus": same}


def _evaluation(corpus: Corpus) -> Facts | None:
    """What `evaluation.json` says, without the samples; None where nothing was evaluated."""
    artifact = corpus.artifacts.get("evaluate")
    if artifact is None:
        return None
    found = read_object(artifact.path / "evaluation.json")
    return {name: found[name] for name in ("validation", "sets", "tasks", "memorisation", "hosts")}


def scored(evaluation: Facts | None) -> list[Figure]:
    """The figures of an evaluation, those of the held-out text first."""
    if evaluation is None:
        return []
    held_out = evaluation["validation"]
    # One text drawn anew is itself.
    interval = tuple(held_out["bits_per_byte_interval"]) if held_out["documents"] > 1 else None
    first = Figure("held-out text", "bits per byte", held_out["bits_per_byte"], interval)
    counted = [
        Figure("held-out text", f"bits per byte of {name}", held_out.get(key))
        for name, key in (("a 5-gram model", "ngram_bits_per_byte"), ("xz -9", "xz_bits_per_byte"))
    ]
    return [first, *counted, *figures(evaluation)]


def _takedowns(told: Manifests) -> int:
    """Documents that takedowns keep out of the corpus."""
    reasons = told["select"]["stats"]["reasons"]
    return int(reasons.get("taken_down", 0) + reasons.get("copy_of_takedown", 0))


def _value(value: Any) -> str:
    """A setting's value in one cell of a table."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_value(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    words = {None: "off or unset", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else _cell(str(value))


def _cell(text: str) -> str:
    """A text from outside in one cell of a table: no line ends, no bar, nothing that marks it up."""
    line = printable(text).replace("\\", "\\\\")
    return "".join(f"\\{character}" if character in "|`*_[]<>#" else character for character in line)
