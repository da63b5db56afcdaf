"""`gptmill schedule`: mill again and again, at set times, until it is told to end."""

import argparse
import os
import socket
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from flows import interrupt
from flows.config import MillConfig, load_config
from flows.display import Display
from flows.notify import SETS_NOTIFY
from flows.options import count, positive, with_config, with_store
from flows.schedule import timers
from flows.schedule.cron import allowed_values
from flows.schedule.run import AS_CONFIGURED, SHOWN, Parameters, command
from flows.schedule.server import ConfiguredServer, OwnServer, server_of
from pipeline.config import BadInput, StageFailed
from pipeline.engine.store import Store

LOCAL_TIME = Path("/etc/localtime")
PATIENT_RETRIES = 5
"""A new server on a busy machine may have no time for a minute; each wait is twice as long as the one before."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    with_store(with_config(parser))
    parser.add_argument("--cron", required=True, metavar="CRON", help='when, as cron has it: "0 3 * * 1"')
    parser.add_argument("--timezone", metavar="ZONE", help="of --cron, as in Europe/Berlin (default: this machine's)")
    parser.add_argument(
        "--catchup",
        choices=("latest", "skip"),
        default="latest",
        help="of the runs missed in an outage do the latest (default), or none",
    )
    parser.add_argument(
        "--start", choices=("scratch", "continue"), help="what training starts from: nothing, or the promoted model"
    )
    parser.add_argument(
        "--jobs", type=count, default=0, metavar="N", help="worker processes of a run (default: all cores)"
    )
    parser.add_argument("--port", type=positive, metavar="N", help="port of Prefect's UI (default: 4200, or any)")
    parser.add_argument(
        "--print", choices=("cron", "systemd"), dest="printed", help="no schedule: print one that needs no server"
    )


def run(options: argparse.Namespace, display: Display) -> int:
    """Schedule, or print a schedule for others."""
    config = load_config(options.config, options.settings)
    store = Store(options.store)
    if any(map(SETS_NOTIFY.match, options.settings)):
        raise BadInput(f"--set: {SHOWN}")
    parameters = Parameters(
        config=str(options.config.absolute()),
        settings=options.settings,
        start=options.start or AS_CONFIGURED,
        jobs=options.jobs,
    )
    allowed_values(options.cron)
    _refuse_unknown_zone(options.timezone)
    if options.printed is not None:
        print(_printed(options, config.name, command(parameters, store.root)))  # noqa: T201  (the command's result)
        return 0
    store.create()
    interrupt.listen()
    try:
        with server_of(store.root, config.name, options.port) as server:
            _schedule(options, config, store, parameters, server, display)
    except KeyboardInterrupt:
        display.note("The schedule has ended, and nothing goes on: runs fall due again once it is started again.")
    return 0


def _schedule(
    options: argparse.Namespace,
    config: MillConfig,
    store: Store,
    parameters: Parameters,
    server: ConfiguredServer | OwnServer,
    display: Display,
) -> None:
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    from flows.schedule.deployment import deploy, refuse_taken_name
    from flows.schedule.scheduler import Scheduler

    schedule = CronSchedule(cron=options.cron, timezone=options.timezone or local_zone())
    name, place = config.name, f"{socket.gethostname()}:{store.root}"
    try:
        with get_client(sync_client=True) as client:
            if server.shared:
                refuse_taken_name(client, name, place)
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: PATIENT_RETRIES}):
                deployment = deploy(client, name, schedule, parameters, place)
            display.note(
                f"gptmill/{name} is scheduled. Its runs, and a form to start one: "
                f"{server.url.removesuffix('/api')}/deployments/deployment/{deployment}\n"
                f"Another command's runs appear there too with PREFECT_API_URL={server.url}"
            )
            catch_up = options.catchup == "latest"
            Scheduler(client, server, deployment, config, store.root, catch_up=catch_up, display=display).watch()
    except httpx.HTTPError as error:
        raise StageFailed(f"The server at {server.url} cannot be worked with: {error}.") from error


def _printed(options: argparse.Namespace, name: str, does: list[str]) -> str:
    """The schedule for cron or systemd."""
    if options.printed == "cron":
        return timers.cron_line(options.cron, options.timezone, does, Path.cwd(), options.config.absolute())
    catch_up = options.catchup == "latest"
    return timers.systemd_units(options.cron, options.timezone, does, Path.cwd(), name, catch_up=catch_up)


def _refuse_unknown_zone(zone: str | None) -> None:
    try:
        ZoneInfo(zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadInput(f"--timezone {zone} is not known here: give a name as in Europe/Berlin.") from error


def local_zone() -> str:
    """The name of this machine's time zone; UTC where it has none."""
    named = os.environ.get("TZ", "").lstrip(":") or str(LOCAL_TIME.resolve()).partition("zoneinfo/")[2]
    return named if named in available_timezones() else "UTC"
