"""The same schedule without a server: a line for cron, or a service and a timer for systemd."""

import shlex
from pathlib import Path

from flows.schedule.cron import DAYS, FIELDS, allowed_values
from pipeline.config import BadInput


def cron_line(cron: str, zone: str | None, command: list[str], folder: Path, config: Path) -> str:
    """A line for `crontab -e`; a run that is still at work when the next is due makes that one end at once."""
    _five_fields(cron)
    does = f"cd {shlex.quote(str(folder))} && flock -n {shlex.quote(str(config))} {shlex.join(command)}"
    lines = [f"CRON_TZ={zone}"] if zone else []
    return "\n".join([*lines, f"{cron} {does.replace('%', chr(92) + '%')}"])


def systemd_units(cron: str, zone: str | None, command: list[str], folder: Path, name: str, *, catch_up: bool) -> str:
    """Shell commands that write a user's service and timer, and start the timer."""
    times = "\n".join(f"OnCalendar={when}{f' {zone}' if zone else ''}" for when in on_calendar(cron))
    unit = f"gptmill-{name}"
    return f"""\
# Read it, then give it to a shell: gptmill schedule … --print systemd | sh
mkdir -p ~/.config/systemd/user
cat >~/.config/systemd/user/{unit}.service <<'END'
[Unit]
Description=gptmill: refresh {name}

[Service]
Type=oneshot
WorkingDirectory={str(folder).replace("%", "%%")}
ExecStart={" ".join(map(_quoted, command))}
KillMode=mixed
END
cat >~/.config/systemd/user/{unit}.timer <<'END'
[Unit]
Description=gptmill: when to refresh {name}

[Timer]
{times}
Persistent={str(catch_up).lower()}

[Install]
WantedBy=timers.target
END
systemctl --user daemon-reload
systemctl --user enable --now {unit}.timer
loginctl enable-linger  # so that it goes on while nobody is logged in"""


def on_calendar(cron: str) -> list[str]:
    """Times in systemd's notation: two where cron has both days of the month and of the week, and means either."""
    minutes, hours, days, months, weekdays = _five_fields(cron)
    clock = f"{_listed(hours)}:{_listed(minutes)}:00"
    on_days = f"*-{_listed(months)}-{_listed(days)} {clock}"
    if weekdays is None:
        return [on_days]
    on_weekdays = (
        f"{','.join(DAYS[day] for day in sorted({day % 7 for day in weekdays}))} *-{_listed(months)}-* {clock}"
    )
    return [on_weekdays] if days is None else [on_days, on_weekdays]


def _five_fields(cron: str) -> list[list[int] | None]:
    """The values of a cron expression without seconds; BadInput where it has some."""
    fields = allowed_values(cron)
    if len(fields) == len(FIELDS):
        raise BadInput(f'--print has no seconds: give --cron five fields, not "{cron}".')
    return fields


def _listed(values: list[int] | None) -> str:
    return "*" if values is None else ",".join(f"{value:02d}" for value in values)


def _quoted(argument: str) -> str:
    """An argument as ExecStart= takes it."""
    escaped = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != argument or any(c.isspace() or c in "'\";" for c in argument) else argument
