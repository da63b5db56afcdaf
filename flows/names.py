"""Which run or snapshot a name means, and which run is meant where no name is given.

Wherever a command takes a run, that is its name, its id or the beginning of that, the name of a config, or `latest`,
which is also what no name means: the run whose artifacts are promoted, of the config whose model was promoted last.
"""

from pathlib import Path

from flows.refs import LATEST, configs, last_promoted, promoted
from flows.runs import Run, has, is_there, runs
from pipeline.config import BadInput
from pipeline.corpus import PACKED
from pipeline.engine.store import Store, read_manifest

CORPUS_STAGES = ("extract", "select", "deduplicate", PACKED)
"""The stages by which one corpus differs from another."""


def find_run(store: Store, wanted: str | None, *stages: str) -> Run:
    """The run that a name means where these stages of it are needed; None is `latest`.

    BadInput where there is none, or where it lacks one of the stages.
    """
    if wanted is None or wanted == LATEST:
        return latest_run(store, None, *stages)
    if wanted in configs(store):
        return latest_run(store, wanted, *stages)
    known = runs(store)
    matching = [run for run in known if wanted in (*run.names, run.id)]
    matching = matching or [run for run in known if run.id.startswith(wanted)]
    if not matching:
        raise BadInput(_no_run(store, wanted))
    if len(matching) > 1:
        raise BadInput(f"{wanted} is the beginning of several runs of this store: gptmill runs lists them.")
    for stage in stages:
        if stage not in matching[0].stages:
            raise BadInput(f"The run {wanted} did not get as far as {stage}: take another, or run again.")
        if not is_there(store, matching[0], stage):
            raise BadInput(f"What {stage} gave in the run {wanted} is no longer in the store: take a later run.")
    return matching[0]


def latest_run(store: Store, config: str | None, *stages: str) -> Run:
    """The run of a config whose artifacts are promoted, where it has these stages; without a config, `latest`.

    Where it lacks one, it is another run that gave the promoted model, rather an evaluated one, or else the newest that
    has them. BadInput where none has.
    """
    name, latest = last_promoted(store) or (None, {}) if config is None else (config, promoted(store, config))
    model = latest.get("stages", {}).get("pretrain", {}).get("key")

    def unlike(run: Run) -> tuple[bool, ...]:
        if run.config != name:
            return (True,)
        trained = run.stages.get("pretrain", {}).get("key")
        return False, trained != model, run.id != latest.get("run"), "evaluate" not in run.stages

    known = [run for run in runs(store) if config in (None, run.config)]
    found = next((run for run in sorted(known, key=unlike) if has(store, run, stages)), None)
    if found is None:
        whose = f"No run in {store.root}" if config is None else f"No run of {config}"
        far = f"has got as far as {stages[-1]}" if stages else "has begun"
        raise BadInput(f"{whose} {far}, or what it gave is gone: gptmill run goes on.")
    return found


def newer_run(store: Store, run: Run) -> Run | None:
    """The newest run that extracted pages, where it began after this one and has another corpus."""
    newest = next((each for each in runs(store) if has(store, each, ("extract",))), run)
    other = any(
        stage in newest.stages and newest.stages[stage]["key"] != run.stages.get(stage, {}).get("key")
        for stage in CORPUS_STAGES
    )
    return newest if other and newest.started > run.started else None


def snapshot_folder(store: Store, name: str) -> Path | None:
    """The snapshot called `<source>/<sequence>`, the source by its name or the beginning of its id; None if none is.

    BadInput where several are.
    """
    source, _, sequence = name.rpartition("/")
    found = _snapshots(store, source, f"{int(sequence):04d}") if sequence.isdecimal() else []
    if len(found) > 1:
        ids = ", ".join(folder.parent.name[:12] for folder in found)
        raise BadInput(f"{name} names several snapshots: write the source's id in place of its name ({ids}).")
    return found[0] if found else None


def _snapshots(store: Store, source: str, sequence: str) -> list[Path]:
    """The snapshots of such numbers of the sources that are called so."""
    return [
        folder
        for folder in sorted((store.root / "snapshots").glob(f"*/{sequence}"))
        if source and (folder.parent.name.startswith(source) or (read_manifest(folder) or {}).get("name") == source)
    ]


def _no_run(store: Store, wanted: str) -> str:
    """What a name is that means no run, and which command takes it."""
    if snapshot_folder(store, wanted) is not None:
        return f"{wanted} is a snapshot and no run: gptmill diff takes two snapshots, gptmill runs lists the runs."
    source, _, sequence = wanted.rpartition("/")
    there = _snapshots(store, source, "[0-9]*") if sequence.isdecimal() else []
    if there:
        return f"{wanted} is no snapshot of this store: the newest of {source} is {source}/{there[-1].name}."
    return f"{wanted} is no run of this store: gptmill runs lists them with their names."
