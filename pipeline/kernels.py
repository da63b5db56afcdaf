"""How kernels are compiled: kept on disk, and compiled anew when any file that they are made of has changed.

Numba's own cache looks at the time stamp of the file that holds a function. Helpers and constants that come from other
files are compiled into the function all the same, and an edit there would go on giving the old results.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Codes = NDArray[np.int32]
"""Code points of a text, or places in it."""
Kinds = NDArray[np.uint32]
"""What each character of a text is: bits of `pipeline.words.tables`."""
Hashes = NDArray[np.uint64]

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(*sources: str) -> Callable[[Function], Function]:
    """A decorator for kernels made of the files `sources`: their own, and those of the helpers and constants they use.

    Kernels release the GIL, and divide as NumPy does, without looking for a divisor of zero.
    """
    digest = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources)).hexdigest()

    def compiled(function: Function) -> Function:
        try:
            dispatcher: Any = njit(cache=True, nogil=True, error_model="numpy")(function)
            dispatcher._cache._cache_file._source_stamp = digest
        except (AttributeError, RuntimeError):  # another Numba, or no folder to keep compiled code in
            dispatcher = njit(nogil=True, error_model="numpy")(function)
        return cast(Function, dispatcher)

    return compiled
