"""How kernels are compiled: kept on disk, and compiled anew when any file that they are made of has changed.

Numba's own cache looks at the time stamp of the file that holds a function. Helpers and constants that come from other
files are compiled into the function all the same, and an edit there would go on giving the old results.
"""

import hashlib
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit as njit  # for whoever has rules of his own about what is kept on disk
from numpy.typing import NDArray

Codes = NDArray[np.int32]
"""Code points of a text, or places in it."""
Kinds = NDArray[np.uint32]
"""What each character of a text is: bits of `pipeline.words.tables`."""
Hashes = NDArray[np.uint64]

Function = TypeVar("Function", bound=Callable[..., Any])

_BLAS = "scipy.linalg.cython_blas"


def _without_blas(module: str) -> None:
    """Import a module that would import `_BLAS`, and half of SciPy with it, if it found it."""
    if _BLAS not in sys.modules:
        sys.modules[_BLAS] = None  # type: ignore[assignment]  # to the import system: there is none
        try:
            import_module(module)
        finally:
            del sys.modules[_BLAS]


# When the first kernel is called, Numba loads what all kernels there could be might need: in 0.26 s of processor time,
# of which SciPy is more than half. No kernel here multiplies matrices.
_without_blas("numba.np.arraymath")


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
