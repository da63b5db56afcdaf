"""Importing this keeps pyarrow from importing pandas, which takes 0.13 s in every process where it is installed.

pyarrow looks for it once, at the first array. What converts tables from pandas or to it looks again; an array of a
Series takes that for a list of values from then on. Nothing here has any.
"""

import sys
from importlib.abc import MetaPathFinder

import pyarrow as pa

PANDAS = "pandas"


class _Hidden(MetaPathFinder):
    """Says that there is no pandas."""

    def find_spec(self, name: str, _path: object, _target: object = None) -> None:
        if name == PANDAS:
            raise ModuleNotFoundError(f"{PANDAS} is hidden", name=PANDAS)


if PANDAS not in sys.modules:
    _finder = _Hidden()
    sys.meta_path.insert(0, _finder)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(_finder)
