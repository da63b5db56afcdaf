"""The wish to end is heeded, whoever swallows the exception that tells of it."""

import contextlib
import os
import signal

import pytest

from flows import interrupt
from flows.display import Display


@pytest.fixture
def listening():
    """Signals are taken for the wish to end; afterwards as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interrupt.listen()
    yield
    interrupt.listen()  # forgets the wish
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_that_a_library_swallowed_ends_a_stage_when_it_next_tells_how_far_it_is(number):
    with Display().stage("pretrain") as bar:
        bar(1, 9, "steps")
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        with pytest.raises(KeyboardInterrupt):
            bar(2, 9, "steps")


@pytest.mark.usefixtures("listening")
def test_a_wish_is_over_once_somebody_listens_anew():
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)
    interrupt.listen()
    interrupt.check()
