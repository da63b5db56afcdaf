"""The command line. Results go to stdout, the rest to stderr; exit codes: 0 done, 1 a run failed, 2 bad input."""

import argparse
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import NoReturn

from rich.console import Console

from flows import compare, dag, doctor, evaluate, export, finetune, generate, inspection, interrupt, schedule, server
from flows.config import as_toml, load_config
from flows.display import Display, plan_lines
from flows.models import existing_store
from flows.options import positive, with_config, with_store
from flows.plan import Decision, Mill, plan, refuse_unknown_stage
from flows.runs import find_run, give_name, refuse_name
from flows.session import Selection, Session
from pipeline.config import BadInput, StageFailed
from pipeline.engine import resolve, upkeep
from pipeline.engine.store import Store

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(BAD_INPUT, f"gptmill: {message} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments or ["--help"])
    display = Display()
    command: Callable[[argparse.Namespace, Display], int] = options.command
    try:
        return command(options, display)
    except BadInput as error:
        display.error(str(error))
        return BAD_INPUT
    except StageFailed as error:
        display.error(str(error))
        return FAILED
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        display.error(_disk_sentence(error))
        return FAILED
    except KeyboardInterrupt:
        display.error("interrupted; what is done is kept.")
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        display.error("this is a defect of gptmill: please report it with the lines above.")
        return FAILED


def parser() -> Parser:
    """The commands and their options."""
    top = Parser(prog="gptmill", description="A list of URLs in, a trained and evaluated GPT out.")
    top.add_argument("--version", action="version", version=f"gptmill {metadata.version('gptmill')}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, function: Callable[..., int], summary: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, epilog=f"example: {example}")
        added.set_defaults(command=function)
        return added

    run = with_store(
        with_config(command("run", _run, "run what is not up to date", "gptmill run -c configs/demo.toml"))
    )
    which = run.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="STAGE", help="run just this stage; refused if what lies before it is stale")
    which.add_argument("--until", metavar="STAGE", help="run this stage and what it needs, nothing after it")
    run.add_argument("--force", metavar="STAGE", help="run this stage even if it is up to date")
    run.add_argument("--name", metavar="NAME", help="name the run: gc then keeps what it made")
    run.add_argument(
        "--jobs",
        type=positive,
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="worker processes (default: all cores)",
    )

    planned = with_store(
        with_config(command("plan", _plan, "say what run would do and why", "gptmill plan --set pretrain.lr=0.001"))
    )
    planned.add_argument("--json", action="store_true", help="one JSON array, an object a stage")

    with_config(command("config", _config, "print the resolved config", "gptmill config -c configs/demo.toml"))

    accepted = with_store(
        with_config(command("accept", _accept, "declare that changed code gives the same", "gptmill accept quality"))
    )
    accepted.add_argument("stage", metavar="STAGE")

    verified = with_store(command("verify", _verify, "check every file in the store", "gptmill verify --full"))
    verified.add_argument("--full", action="store_true", help="read and hash every byte; put bad files aside")

    cleaned = with_store(command("gc", _gc, "delete what no latest artifact needs", "gptmill gc --dry-run"))
    cleaned.add_argument("--dry-run", action="store_true", help="only say what would be deleted")

    generate.arguments(
        command("generate", generate.run, "stream text from the newest model", 'gptmill generate "os.path"')
    )
    example = "gptmill evaluate latest notes.txt piqa.jsonl"
    evaluate.arguments(command("evaluate", evaluate.run, "score a model on texts and benchmarks", example))
    example = 'gptmill compare latest tuned --prompt "Return the" --html compare.html'
    compare.arguments(command("compare", compare.run, "show two models side by side", example))
    example = "gptmill finetune data.jsonl --out tuned --lr 1e-4"
    finetune.arguments(command("finetune", finetune.run, "train a model further on examples of your own", example))
    export.arguments(
        command("export", export.run, "take the newest model or its corpus elsewhere", "gptmill export --hf my-model")
    )
    inspection.declare(command)
    example = 'gptmill schedule -c configs/web.toml --cron "0 3 * * 1"'
    schedule.arguments(command("schedule", schedule.run, "mill what is new, again and again", example))
    doctor.arguments(command("doctor", doctor.run, "mend what killed runs left behind", "gptmill doctor --dry-run"))
    return top


def _run(options: argparse.Namespace, display: Display) -> int:
    mill = _mill(options)
    selection = Selection(mill, only=options.only, until=options.until, force=options.force)
    if options.name is not None:
        refuse_name(mill.store, options.name)
    interrupt.listen()
    with Session(mill, selection, options.jobs, display) as session:
        decisions = session.start({"arguments": sys.argv[1:], "jobs": options.jobs})
        wanted = [decision for decision in decisions if decision.stage in selection.wanted]
        if all(decision.status == "cached" for decision in wanted) and server.configured() is None:
            dag.mill(session.walk, mill.config, mill)
        else:
            from flows.orchestrate import run_flow

            display.note(_intention(wanted))
            with server.at_hand(mill.store.root, session.use_wait) as served:
                run_flow(session, served=served)
    if options.name is not None:
        give_name(mill.store, find_run(mill.store, session.log_path.stem), options.name)
    _tell_end(session, display)
    return DONE


def _intention(decisions: list[Decision]) -> str:
    """What is about to happen, said before Prefect's seconds of start-up."""
    first = next((d for d in decisions if d.status == "run"), None)
    cached = sum(decision.status == "cached" for decision in decisions)
    why = f", from {first.stage} on ({'; '.join(first.reasons)})" if first else ""
    return f"{len(decisions) - cached} stages to run{why}, {cached} cached. Starting Prefect."


def _tell_end(session: Session, display: Display) -> None:
    display.note(f"{session.ran} stages ran, {session.cached} cached.")
    report = session.artifacts.get("report")
    if report is not None:
        print(report.path / "report.html")  # noqa: T201  (the command's result)


def _plan(options: argparse.Namespace, _display: Display) -> int:
    decisions: list[Decision] = plan(_mill(options))
    if options.json:
        print(json.dumps([decision.as_json() for decision in decisions], indent=1))  # noqa: T201
    else:
        plan_lines(decisions, Console(highlight=False, soft_wrap=True))
    return DONE


def _config(options: argparse.Namespace, _display: Display) -> int:
    print(as_toml(load_config(options.config, options.settings)), end="")  # noqa: T201
    return DONE


def _accept(options: argparse.Namespace, display: Display) -> int:
    refuse_unknown_stage(options.stage)
    from flows.stages import BY_NAME

    if options.stage == "scrape":
        raise BadInput("The crawler's code is recorded with a snapshot and never keyed: there is nothing to accept.")
    mill = _mill(options)
    last_key = mill.latest().get(options.stage, {}).get("key")
    last = mill.store.manifest(options.stage, last_key) if last_key else None
    if last is None:
        raise BadInput(
            f"This config has no artifact of {options.stage} yet whose code could be the same: run it first."
        )
    if resolve.accept(mill.store, BY_NAME[options.stage], last):
        display.note(f"{options.stage}: the present code counts as that of {last['key'][:12]}.")
    else:
        display.note(f"{options.stage}: the present code is that of {last['key'][:12]} already.")
    return DONE


def _verify(options: argparse.Namespace, display: Display) -> int:
    found, checked = upkeep.verify(existing_store(options.store), full=options.full)
    for problem in found:
        print(problem)  # noqa: T201
    display.note(f"{checked:,} files checked, {len(found):,} damaged.")
    return FAILED if found else DONE


def _gc(options: argparse.Namespace, display: Display) -> int:
    garbage = upkeep.collect(existing_store(options.store), dry_run=options.dry_run)
    for folder, size in garbage:
        print(f"{size:>14,}  {folder}")  # noqa: T201
    verb = "would be deleted" if options.dry_run else "deleted"
    display.note(f"{len(garbage)} folders, {sum(size for _, size in garbage):,} bytes {verb}.")
    return DONE


def _mill(options: argparse.Namespace) -> Mill:
    config = load_config(options.config, options.settings)
    return Mill(Store(options.store), config)


def _disk_sentence(error: OSError) -> str:
    where = f" while writing {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}: free some space and run again; nothing half-written was kept."
    return f"{error.strerror or error}{where}: see to it and run again."


if __name__ == "__main__":
    sys.exit(main())
