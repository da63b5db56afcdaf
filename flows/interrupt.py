"""Being asked to end, by Ctrl-C or SIGTERM: children are ended, what is done is kept.

Python drops an exception that a signal raises while some destructor or weak reference runs, and libraries swallow some,
as happens while Prefect or torch is being imported. So the wish is also remembered, and looked at before each stage and
whenever one tells how far it is.
"""

import signal
from typing import NoReturn

_asked = False


def listen() -> None:
    """From now on take SIGINT and SIGTERM for the wish to end."""
    global _asked
    _asked = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def check() -> None:
    """KeyboardInterrupt where the end was asked for."""
    if _asked:
        raise KeyboardInterrupt


def stop() -> NoReturn:
    """End as after a signal: a stage that hears signals itself was asked to."""
    global _asked
    _asked = True
    raise KeyboardInterrupt


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    stop()
