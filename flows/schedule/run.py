"""What a scheduled run does: its parameters, which are a form in Prefect's UI, and the command that they come to."""

import sys
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator

from flows.notify import SETS_NOTIFY, WEBHOOK
from flows.stages import BY_NAME

NOTHING = "nothing"
AS_CONFIGURED: Final = "as configured"
FIRST, LAST = "scrape", "report"

SHOWN = f"notify among the settings would show the webhook in Prefect's UI: put it in the config, or in {WEBHOOK}."

Stage = Annotated[str, WithJsonSchema({"type": "string", "enum": [*BY_NAME]})]
StageOrNothing = Annotated[str, WithJsonSchema({"type": "string", "enum": [NOTHING, *BY_NAME]})]


class Parameters(BaseModel):
    """What a scheduled run takes; by default it crawls anew and mills what is new."""

    model_config = ConfigDict(extra="forbid")

    config: str = Field(title="Config", description="The config file, as the machine of the schedule sees it.")
    settings: list[str] = Field([], title="Settings", description='Keys to override, as in "pretrain.lr=0.001".')
    force: StageOrNothing = Field(FIRST, title="Force", description="Do this stage though it is up to date.")
    until: Stage = Field(LAST, title="Until", description="Stop after this stage.")
    start: Literal["as configured", "scratch", "continue"] = Field(
        AS_CONFIGURED, title="Start", description="What training starts from: nothing, or the promoted model."
    )
    jobs: int = Field(0, ge=0, title="Jobs", description="Worker processes; 0: as many as there are cores.")

    @field_validator("settings")
    @classmethod
    def _hold_no_webhook(cls, settings: list[str]) -> list[str]:
        if any(map(SETS_NOTIFY.match, settings)):
            raise ValueError(SHOWN)
        return settings


def command(parameters: Parameters, store: Path) -> list[str]:
    """`gptmill` and its arguments: a refresh by default, a plain run where the stages are others."""
    if (parameters.force, parameters.until) == (FIRST, LAST):
        does = ["refresh"]
    else:
        force = [] if parameters.force == NOTHING else ["--force", parameters.force]
        does = ["run", *force, "--until", parameters.until]
    start = [] if parameters.start == AS_CONFIGURED else ["--start", parameters.start]
    where = ["--config", parameters.config, "--store", str(store)]
    settings = [argument for setting in parameters.settings for argument in ("--set", setting)]
    jobs = ["--jobs", str(parameters.jobs)] if parameters.jobs else []
    return [*gptmill(), *does, *where, *start, *settings, *jobs]


def gptmill() -> list[str]:
    """How this program is called: the script beside this Python where there is one."""
    script = Path(sys.executable).with_name("gptmill")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "flows"]
