"""The lists, texts and numbers in a pickled NumPy array of one object, read without running it.

A pickle is a program: it names callables and calls them. Here every name is refused but the three
that NumPy writes for arrays, and even those are not NumPy's: they are stand-ins of this module that
only remember what they were given. So nothing that the file names is ever called.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

_INTEGERS = {"i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"}


class _DType:
    """Stands in for numpy.dtype."""

    def __init__(self, name: str = "", *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like: not needed."""


class _Array:
    """Stands in for an array. values: its objects where it is one of objects, else None."""

    values: list | None = None

    def __setstate__(self, state: tuple) -> None:
        held = state[4]
        self.values = held if isinstance(held, list) else None


class _ArrayType:
    """Stands in for the class numpy.ndarray, which is only handed on."""


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _DType, value: bytes) -> int:
    if dtype.name not in _INTEGERS:
        raise pickle.UnpicklingError(f"it holds a number of type {dtype.name!r}")
    return int(np.frombuffer(value, np.dtype("<" + dtype.name), 1)[0])


_STAND_INS = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _ArrayType,
    **{
        (f"numpy.{core}.multiarray", name): stand_in
        for core in ("core", "_core")
        for name, stand_in in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no plain value")
        return _STAND_INS[module, name]


def read_object(file: str | Path) -> Any:
    """What `np.save` made of one Python object: dict, list, tuple, text and numbers.

    Arrays inside come out as objects of no use. Raises FileNotFoundError, or ValueError naming the
    file where it is of another kind, damaged, or names anything but plain values.
    """
    file = Path(file)
    with file.open("rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(stream)
            if shape != () or not dtype.hasobject:
                raise ValueError(f"it is an array of {dtype} of shape {shape}, not one object")
            (value,) = _Reader(stream).load().values
        except (pickle.UnpicklingError, ValueError, KeyError, EOFError, AttributeError, TypeError,
                IndexError, ImportError, OverflowError) as error:
            raise ValueError(f"{file} cannot be read: {error}.") from error
    return value
