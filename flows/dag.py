"""The DAG: from a list of URLs to an evaluated GPT, as plain calls in order.

`step` takes a stage, its section of the config and its inputs, and gives the stage's artifact. What `step` is
decides what happens: a planner only explains, a runner runs, a drawer draws. `outside` gives what comes from outside the
DAG: evaluation sets, the language model, the takedown list, and the checkpoint that training may start from.

                ┌─► signatures ────────────────────────┐
                ├─► contamination ─────────────────────┤
scrape ─► extract ─► language ─┬─► quality ────────────┼─► select ─► deduplicate ─┐
                               └─► tokenizer ─► tokenize ─────────────────────────┴─► pack ─► pretrain ─► evaluate ─► report
"""  # noqa: E501  (the picture is as wide as the mill)

from typing import Any, Protocol

from pydantic import BaseModel

from flows import stages
from flows.config import MillConfig
from pipeline.engine.hashes import Files
from pipeline.engine.stage import Stage


class Step(Protocol):
    """Turns a stage, its config and its inputs into the stage's artifact, or into what stands for it."""

    def __call__(self, stage: Stage, section: str, config: BaseModel, /, **inputs: Any) -> Any:
        """Do the step."""


class Outside(Protocol):
    """What comes from outside the DAG."""

    @property
    def evaluation_sets(self) -> Files:
        """What the model will be measured on."""

    @property
    def language_model(self) -> Files:
        """The fastText model."""

    @property
    def tokenizer_model(self) -> Files:
        """The SentencePiece model that is taken instead of training one."""

    @property
    def tombstones(self) -> Files:
        """The takedown list."""

    def start(self, shards: Any, /) -> Any:
        """The checkpoint that training on these shards goes on from, if it does not start from nothing."""


def mill(step: Step, config: MillConfig, outside: Outside) -> Any:
    """Walk the whole DAG with `step` and return what the last stage gave."""
    pages = step(stages.SCRAPE, "scrape", config.scrape)
    documents = step(stages.EXTRACT, "extract", config.extract, pages=pages)

    language = step(stages.LANGUAGE, "language", config.language, documents=documents, model=outside.language_model)
    # Early, so that workers go on with the other ledgers meanwhile.
    first = config.tokenizer.train_snapshots
    given = {"model": outside.tokenizer_model} if config.tokenizer.model else {}
    tokenizer = step(
        stages.TOKENIZER,
        "tokenizer",
        config.tokenizer,
        documents=documents.of_first_snapshots(first),
        language=language.of_first_snapshots(first),
        **given,
    )

    quality = step(stages.QUALITY, "quality", config.quality, documents=documents, language=language)
    signatures = step(stages.SIGNATURES, "signatures", config.signatures, documents=documents)
    contamination = step(
        stages.CONTAMINATION, "contamination", config.contamination, documents=documents, sets=outside.evaluation_sets
    )

    select = step(
        stages.SELECT,
        "policy",
        config.policy,
        snapshots=pages,
        documents=documents,
        language=language,
        quality=quality,
        contamination=contamination,
        tombstones=outside.tombstones,
    )
    deduplicate = step(
        stages.DEDUPLICATE,
        "deduplicate",
        config.deduplicate,
        snapshots=pages,
        documents=documents,
        signatures=signatures,
        select=select,
    )

    # Policy-blind unless C4's kept lines are asked for: a new quality score then need not encode anything again.
    c4_lines = {"quality": quality} if config.tokenize.c4_lines else {}
    tokens = step(
        stages.TOKENIZE,
        "tokenize",
        config.tokenize,
        documents=documents,
        language=language,
        tokenizer=tokenizer,
        **c4_lines,
    )
    shards = step(
        stages.PACK,
        "pack",
        config.pack,
        documents=documents,
        tokens=tokens,
        select=select,
        deduplicate=deduplicate,
        tokenizer=tokenizer,
    )

    start = outside.start(shards)
    goes_on = {} if start is None else {"start": start}
    checkpoint = step(stages.PRETRAIN, "pretrain", config.pretrain, shards=shards, tokenizer=tokenizer, **goes_on)
    evaluation = step(
        stages.EVALUATE,
        "evaluate",
        config.evaluate,
        checkpoint=checkpoint,
        shards=shards,
        tokenizer=tokenizer,
        sets=outside.evaluation_sets,
    )
    return step(
        stages.REPORT,
        "report",
        config.report,
        scrape=pages,
        extract=documents,
        language=language,
        quality=quality,
        signatures=signatures,
        contamination=contamination,
        select=select,
        deduplicate=deduplicate,
        tokenizer=tokenizer,
        tokenize=tokens,
        pack=shards,
        pretrain=checkpoint,
        evaluate=evaluation,
    )
