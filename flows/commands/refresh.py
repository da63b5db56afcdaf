"""`gptmill refresh`: crawl every source again, do what that changes, and promote the new model if it is as good.

A refresh is a run that has something to live up to. It notes which snapshot each crawl should have by its end and what
training on a new corpus starts from, both settled once; then it is a run like any other. So whatever stops it, the
next `gptmill run` or `gptmill refresh` goes on: a half crawl where it was, training from its last checkpoint, and the
question of promotion if it has not been asked. A `refresh` wants another snapshot of what was sealed already.
"""

import argparse

from flows import refs, running
from flows.display import Display
from flows.plan import Mill
from flows.session import Selection
from pipeline import snapshots
from pipeline.config import BadInput
from pipeline.sources import CrawlSource


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    running.arguments(added)


def run(options: argparse.Namespace, display: Display) -> int:
    """Do a whole refresh; a model that is not promoted is a warning and no failure."""
    mill = running.mill_of(options)

    def begin(mill: Mill) -> None:
        begin_refresh(mill, options.start or mill.config.refresh.start, display)

    return running.run_mill(mill, Selection(mill), options, display, begin)


def begin_refresh(mill: Mill, start: str, display: Display) -> None:
    """Settle what the refresh crawls, and what training starts from; BadInput where it cannot start from there.

    Given files are no matter of a refresh: what changed in them is seen by every run.
    """
    crawls: dict[str, int] = {}
    for source in mill.config.scrape.sources:
        if isinstance(source, CrawlSource):
            source_key = snapshots.identify(source, mill.hashes)
            newest = snapshots.newest_sequence(mill.store, source_key)
            crawls[source_key] = 0 if newest is None else newest + 1
    facts = starting_point(mill, start, display)
    mill.begun = refs.begin_refresh(mill.store, mill.config.name, {**facts, "crawls": crawls})


def begin_anew(mill: Mill, start: str, display: Display) -> None:
    """Settle anew what training starts from, on whatever corpus, and nothing else; BadInput where it cannot."""
    facts = {**starting_point(mill, start, display), "any_corpus": True}
    mill.begun = refs.change_refresh(mill.store, mill.config.name, facts)


def starting_point(mill: Mill, start: str, display: Display) -> refs.Row:
    """The model that is promoted now, and whether training goes on from it, as `refs.last_refresh` tells them."""
    stages = refs.promoted(mill.store, mill.config.name).get("stages", {})
    known = {"pretrain": stages["pretrain"]} if "pretrain" in stages else {}
    if start == "continue":
        if known:
            _refuse_unfit(mill, known["pretrain"]["key"])
        else:
            display.note("No model of this config is promoted yet: training starts from nothing.")
    return {"start": start, "stages": known}


def _refuse_unfit(mill: Mill, key: str) -> None:
    """BadInput where training cannot go on from the promoted model, known before anything is crawled."""
    from model.config import TrainingError
    from model.pretrain import refuse_other_shape

    promoted = mill.store.load("pretrain", key)
    if promoted is None or mill.store.damage(promoted.path, promoted.manifest):
        raise BadInput(f"The promoted model pretrain/{key} is damaged or gone: start from nothing, --start scratch.")
    try:
        refuse_other_shape(promoted.path, mill.config.pretrain)
    except TrainingError as error:
        raise BadInput(str(error)) from error
