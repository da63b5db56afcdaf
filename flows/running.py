"""A whole run: plan, walk the DAG, with Prefect where there is anything to do, promote, and tell how it ended.

`run` and `refresh` are both this; a refresh only notes beforehand what is to be crawled and what training starts from.
"""

import argparse
import os
import sys
from collections.abc import Callable

from flows import dag, interrupt, promotion, server
from flows.config import load_config
from flows.display import Display
from flows.names import find_run
from flows.notify import masked
from flows.options import positive, with_config, with_store
from flows.plan import Decision, Mill
from flows.runs import give_name, refuse_name
from flows.session import Selection, Session
from pipeline.engine.store import Store


def arguments(added: argparse.ArgumentParser) -> None:
    """Declare what both commands take."""
    with_store(with_config(added))
    added.add_argument("--name", metavar="NAME", help="name the run: gc then keeps what it made")
    added.add_argument(
        "--start", choices=("scratch", "continue"), help="what training starts from: nothing, or the promoted model"
    )
    added.add_argument(
        "--jobs",
        type=positive,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="worker processes (default: all cores)",
    )


def mill_of(options: argparse.Namespace) -> Mill:
    """The config and the store that the options name."""
    return Mill(Store(options.store), load_config(options.config, options.settings))


def run_mill(
    mill: Mill,
    selection: Selection,
    options: argparse.Namespace,
    display: Display,
    begin: Callable[[Mill], None] | None = None,
) -> int:
    """Run what is not up to date, and print the report's path; `begin` is called first, with the store held."""
    if options.name is not None:
        refuse_name(mill.store, options.name)
    interrupt.listen()
    with Session(mill, selection, options.jobs, display) as session:
        if begin is not None:
            begin(mill)
        decisions = session.start({"arguments": masked(sys.argv[1:]), "jobs": options.jobs})
        alone = server.configured() is None
        if alone:
            decisions = session.crawl(decisions)
        wanted = [decision for decision in decisions if decision.stage in selection.wanted]
        if alone and all(decision.status == "cached" for decision in wanted):
            dag.mill(session.walk, mill.config, mill)
            promotion.conclude(session)
        else:
            from flows.orchestrate import run_flow

            display.note(_intention(wanted))
            with server.at_hand(mill.store.root, session.use_wait) as served:
                run_flow(session, served=served)
        if options.name is not None:  # with the store held: gc takes what has no name
            give_name(mill.store, find_run(mill.store, session.run), options.name)
    display.note(f"{session.ran} stages ran, {session.cached} cached.")
    report = session.artifacts.get("report")
    if report is not None:
        print(report.path / "report.html")  # noqa: T201  (the command's result)
    return 0


def _intention(decisions: list[Decision]) -> str:
    """What is about to happen, said before Prefect's seconds of start-up."""
    first = next((d for d in decisions if d.status == "run"), None)
    cached = sum(decision.status == "cached" for decision in decisions)
    why = f", from {first.stage} on ({'; '.join(first.reasons)})" if first else ""
    return f"{len(decisions) - cached} stages to run{why}, {cached} cached. Starting Prefect."
