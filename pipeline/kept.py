"""Results that a process keeps for its next part, worked out once however many threads ask at the same moment."""

from collections.abc import Callable
from functools import lru_cache, wraps
from threading import Lock
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def kept(results: int) -> Callable[[Function], Function]:
    """A decorator for functions of hashable arguments: so many results are kept, those asked for last."""

    def keeping(function: Function) -> Function:
        remembered, one_at_a_time = lru_cache(maxsize=results)(function), Lock()

        @wraps(function)
        def result(*arguments: Any) -> Any:
            with one_at_a_time:
                return remembered(*arguments)

        return cast(Function, result)

    return keeping
