"""The command line. Results go to stdout, the rest to stderr; exit codes: 0 done, 1 a run failed, 2 bad input."""

import argparse
import errno
import json
import math
import os
import secrets
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from flows import dag, interrupt, server
from flows.config import DEFAULT_CONFIG, DEFAULT_STORE, as_toml, load_config
from flows.display import Display, plan_lines
from flows.plan import Decision, Mill, plan, refuse_unknown_stage
from flows.session import Selection, Session, latest_model
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

    def with_store(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added.add_argument("--store", type=Path, default=DEFAULT_STORE, metavar="DIR", help=f"default: {DEFAULT_STORE}")
        return added

    def with_config(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
        default = f"default: {DEFAULT_CONFIG}"
        added.add_argument("-c", "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help=default)
        more = "override one key; may be repeated"
        added.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE", help=more)
        return added

    run = with_store(
        with_config(command("run", _run, "run what is not up to date", "gptmill run -c configs/demo.toml"))
    )
    which = run.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="STAGE", help="run just this stage; refused if what lies before it is stale")
    which.add_argument("--until", metavar="STAGE", help="run this stage and what it needs, nothing after it")
    run.add_argument("--force", metavar="STAGE", help="run this stage even if it is up to date")
    run.add_argument(
        "--jobs",
        type=_positive,
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

    generated = with_store(
        command("generate", _generate, "stream text from the newest model", 'gptmill generate "os.path"')
    )
    generated.add_argument("prompt", nargs="?", default="", help="the text to go on from; none: start a new document")
    generated.add_argument("-c", "--config", type=Path, metavar="FILE", help="the newest model of this config")
    generated.add_argument("--temperature", type=_at_least_zero, default=0.8, help="0: the likeliest (default 0.8)")
    generated.add_argument("--top-k", type=_count, default=0, help="sample among the k likeliest tokens (default: all)")
    generated.add_argument("--top-p", type=_share, default=0.95, help="sample within this probability (default 0.95)")
    generated.add_argument("--seed", type=_count, default=None, help="same seed, same text")
    generated.add_argument("--max-tokens", type=_positive, default=200, help="stop after so many tokens (default 200)")
    return top


def _run(options: argparse.Namespace, display: Display) -> int:
    mill = _mill(options)
    selection = Selection(mill, only=options.only, until=options.until, force=options.force)
    interrupt.listen()
    with Session(mill, selection, options.jobs, display) as session:
        decisions = session.start({"arguments": sys.argv[1:], "jobs": options.jobs})
        wanted = [decision for decision in decisions if decision.stage in selection.wanted]
        if all(decision.status == "cached" for decision in wanted) and server.configured() is None:
            dag.mill(session.walk, mill.config, mill)
        else:
            from flows.orchestrate import run_flow

            display.note(_intention(wanted))
            with server.at_hand(mill.store.root) as served:
                run_flow(session, served=served)
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
    found, checked = upkeep.verify(_existing_store(options.store), full=options.full)
    for problem in found:
        print(problem)  # noqa: T201
    display.note(f"{checked:,} files checked, {len(found):,} damaged.")
    return FAILED if found else DONE


def _gc(options: argparse.Namespace, display: Display) -> int:
    garbage = upkeep.collect(_existing_store(options.store), dry_run=options.dry_run)
    for folder, size in garbage:
        print(f"{size:>14,}  {folder}")  # noqa: T201
    verb = "would be deleted" if options.dry_run else "deleted"
    display.note(f"{len(garbage)} folders, {sum(size for _, size in garbage):,} bytes {verb}.")
    return DONE


def _generate(options: argparse.Namespace, _display: Display) -> int:
    store = _existing_store(options.store)
    wanted = load_config(options.config).name if options.config else None
    found = (wanted, Mill(store, load_config(options.config)).latest()) if wanted else latest_model(store.root)
    if found is None or "pretrain" not in found[1] or "tokenizer" not in found[1]:
        raise BadInput(f"There is no trained model in {options.store}: gptmill run makes one.")
    name, known = found
    checkpoint = store.artifact_folder("pretrain", known["pretrain"]["key"])
    tokenizer = store.artifact_folder("tokenizer", known["tokenizer"]["key"])
    from model.config import TrainingError
    from model.generate import generate, load, stream_text
    from pipeline.shards import end_of_text, load_encoding

    encoding = load_encoding(tokenizer)
    stop = end_of_text(encoding)
    try:
        ids = generate(
            load(checkpoint),
            [stop, *encoding.encode_ordinary(options.prompt)],
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=secrets.randbits(32) if options.seed is None else options.seed,
            stop_id=stop,
        )
        sys.stdout.write(options.prompt)
        for text in stream_text(encoding, ids):
            sys.stdout.write(text)
            sys.stdout.flush()
    except TrainingError as error:
        raise BadInput(f"The model of {name} cannot be used: {error}") from error
    sys.stdout.write("\n")
    return DONE


def _mill(options: argparse.Namespace) -> Mill:
    config = load_config(options.config, options.settings)
    return Mill(Store(options.store), config)


def _existing_store(path: Path) -> Store:
    if not (path / "store.json").is_file():
        raise BadInput(f"There is no store in {path}: give one with --store DIR, or make one with gptmill run.")
    return Store(path)


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 1")
    return value


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text} is no whole number of at least 0")
    return int(text)


def _at_least_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of at least 0")
    return value


def _share(text: str) -> float:
    value = _at_least_zero(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number above 0 and up to 1")
    return value


def _disk_sentence(error: OSError) -> str:
    where = f" while writing {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}: free some space and run again; nothing half-written was kept."
    return f"{error.strerror or error}{where}: see to it and run again."


if __name__ == "__main__":
    sys.exit(main())
