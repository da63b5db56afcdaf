"""Notices: a small JSON object by POST, of what a person wants to hear of without watching.

    {"event": "promoted", "text": "…", "reason": "…", "config": "web", "run": "…", "store": "…", "host": "…", "at": "…"}

Receivers in Slack's manner show `text`. One that is down, slow, or refuses never harms a run.
"""

import http.client
import json
import os
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from flows import logs
from pipeline.config import Config, execution

WEBHOOK = "GPTMILL_WEBHOOK"
TIMEOUT_SECONDS = 10.0

SETS_NOTIFY = re.compile(r"^((?:--\w+=)?\s*notify\b[\w.]*).*", re.DOTALL)
"""A `--set` of this section, of one key or of all of it, with the option before it or without; also one gone wrong."""

Row = dict[str, Any]


class NotifyConfig(Config):
    """Who is told of what."""

    webhook: str = execution("", pattern=r"^(https?://\S+)?$")
    """URL that notices are sent to as JSON; empty: nobody is told. Where it is a secret, set GPTMILL_WEBHOOK instead"""
    on: tuple[Literal["done", "failed", "crashed", "promoted", "refused"], ...] = execution(
        ("failed", "crashed", "promoted", "refused")
    )
    """Events to tell: a run done, failed, or killed while scheduled; a new model promoted, or not good enough"""


def masked(arguments: list[str]) -> list[str]:
    """A command line without the webhook that a `--set` may have: what tells of runs is for others to read too."""
    return [SETS_NOTIFY.sub(r"\1=…", each) for each in arguments]


def tell_of_run(notify: NotifyConfig, config: str, log: Path) -> list[str]:
    """Send what a run's log says that somebody wants to hear; one sentence for each notice that could not be sent."""
    rows = logs.read(log)
    about = {"run": log.stem, "store": str(log.parents[1])}
    return [problem for notice in _notices(config, rows) for problem in tell(notify, config, **notice, **about)]


def tell(notify: NotifyConfig, config: str, *, event: str, text: str, **facts: Any) -> list[str]:
    """Send one notice if it is wanted. Returns a sentence where it could not be sent."""
    webhook = os.environ.get(WEBHOOK) or notify.webhook
    if not webhook or event not in notify.on:
        return []
    about = {"config": config, "host": socket.gethostname(), "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    body = json.dumps({"event": event, "text": text, **facts, **about}).encode()
    try:
        request = urllib.request.Request(webhook, body, {"Content-Type": "application/json"})  # noqa: S310  (as configured)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
            return []
    except (OSError, ValueError, http.client.HTTPException) as error:
        # Of the error only what holds no part of the URL, which may be a secret.
        if isinstance(error, urllib.error.HTTPError):
            why = f"HTTP {error.code}"
        else:
            why = getattr(getattr(error, "reason", error), "strerror", None) or type(error).__name__
        return [f"The notice of {event} could not be sent ({why}); the run is none the worse."]


def _notices(config: str, rows: list[Row]) -> Iterator[Row]:
    """What a run's log tells: of its promotion, and of its end."""
    for row in rows:
        if row["event"] == "promotion":
            event = "promoted" if row["promoted"] else "refused"
            told = "has a new model" if row["promoted"] else "keeps its model"
            yield {"event": event, "text": f"gptmill: {config} {told}: {row['reason']}", "reason": row["reason"]}
        elif row["event"] == "end" and row["status"] == "done":
            ran = sum(each["event"] == "stage" and each["status"] == "run" for each in rows)
            yield {"event": "done", "text": f"gptmill: {config} is up to date, {ran} stages ran.", "ran": ran}
        elif row["event"] == "end":
            yield {"event": "failed", "text": f"gptmill: {config} failed: {row['error']}", "reason": row["error"]}
