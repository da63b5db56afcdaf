"""The command line. Results go to stdout, the rest to stderr; exit codes: 0 done, 1 a run failed, 2 bad input."""

import argparse
import atexit
import errno
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import metadata
from typing import NoReturn

from rich.console import Console

from flows import estimate, refs, running
from flows.commands import doctor, evaluate, export, finetune, generate, inspection, promote, refresh
from flows.comparison import compare
from flows.config import as_toml, load_config
from flows.display import Display, plan_lines
from flows.models import existing_store
from flows.options import with_config, with_json, with_selection, with_store
from flows.plan import plan, refuse_unknown_stage
from flows.schedule import schedule
from flows.session import Selection
from pipeline.config import BadInput, StageFailed
from pipeline.engine import resolve, upkeep

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

GARBAGE_THRESHOLD = 100_000
"""New objects after which Python looks for garbage. What is imported stays, and by default it is looked through again
and again."""

OUT_OF_MEMORY = (
    "the GPU's memory is too small for this: do less at once (--batch-size, evaluate.batch_size), take a smaller "
    'model, or the CPU (evaluate.device = "cpu"; for a command: CUDA_VISIBLE_DEVICES= before it).'
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(BAD_INPUT, f"gptmill: {message} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    atexit.register(gc.freeze)  # nor is it looked through once more at the end, which took a second
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
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's own; most commands never import it
            display.error(OUT_OF_MEMORY)
            return FAILED
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

    run = command("run", _run, "run what is not up to date", "gptmill run -c configs/demo.toml")
    running.arguments(run)
    with_selection(run)

    example = "gptmill refresh -c configs/web.toml --start continue"
    refresh.arguments(command("refresh", refresh.run, "crawl again, and promote the model if it is as good", example))
    promote.arguments(command("promote", promote.run, "make a run's model the latest", "gptmill promote release"))

    planned = with_store(
        with_config(
            command("plan", _plan, "say what run would do, why, and what it costs", "gptmill plan --force deduplicate")
        )
    )
    with_selection(planned)
    with_json(planned, "one JSON array, an object a stage")

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
        command("generate", generate.run, "stream text from the latest model", 'gptmill generate "os.path"')
    )
    example = "gptmill evaluate latest notes.txt piqa.jsonl"
    evaluate.arguments(command("evaluate", evaluate.run, "score a model on texts and benchmarks", example))
    example = 'gptmill compare latest tuned --prompt "Return the" --html compare.html'
    compare.arguments(command("compare", compare.run, "show two models side by side", example))
    example = "gptmill finetune data.jsonl --out tuned --lr 1e-4"
    finetune.arguments(command("finetune", finetune.run, "train a model further on examples of your own", example))
    export.arguments(
        command("export", export.run, "take the latest model or its corpus elsewhere", "gptmill export --hf my-model")
    )
    inspection.declare(command)
    example = 'gptmill schedule -c configs/web.toml --cron "0 3 * * 1"'
    schedule.arguments(command("schedule", schedule.run, "mill what is new, again and again", example))
    doctor.arguments(command("doctor", doctor.run, "mend what killed runs left behind", "gptmill doctor --dry-run"))
    return top


def _run(options: argparse.Namespace, display: Display) -> int:
    mill = running.mill_of(options)
    selection = Selection(mill, only=options.only, until=options.until, force=options.force)
    if options.start is None:
        return running.run_mill(mill, selection, options, display)
    return running.run_mill(
        mill, selection, options, display, lambda mill: refresh.begin_anew(mill, options.start, display)
    )


def _plan(options: argparse.Namespace, _display: Display) -> int:
    mill = running.mill_of(options)
    selection = Selection(mill, only=options.only, until=options.until, force=options.force)
    decisions = [each for each in plan(mill, force=options.force) if each.stage in selection.wanted]
    costs = estimate.estimates(mill, decisions, options.force)
    if options.json:
        print(json.dumps([each.as_json() | costs[each.stage].as_json() for each in decisions], indent=1))  # noqa: T201
    else:
        plan_lines(decisions, costs, Console(highlight=False, soft_wrap=True))
    selection.refuse_stale(decisions)
    return DONE


def _config(options: argparse.Namespace, _display: Display) -> int:
    print(as_toml(load_config(options.config, options.settings)), end="")  # noqa: T201
    return DONE


def _accept(options: argparse.Namespace, display: Display) -> int:
    refuse_unknown_stage(options.stage)
    from flows.stages import BY_NAME

    if options.stage == "scrape":
        raise BadInput("The crawler's code is recorded with a snapshot and never keyed: there is nothing to accept.")
    mill = running.mill_of(options)
    last_key = refs.newest(mill.store, mill.config.name).get(options.stage, {}).get("key")
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


def _disk_sentence(error: OSError) -> str:
    where = f" while writing {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}: free some space and run again; nothing half-written was kept."
    return f"{error.strerror or error}{where}: see to it and run again."
