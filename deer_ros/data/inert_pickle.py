"""The lists, texts and numbers in a pickled NumPy array of one object, read without running it.

A pickle is a program: it names callables and calls them. Here every name is refused but the three
that NumPy writes for arrays, and even those are not NumPy's: they are stand-ins of this module that
only make values of the bytes they were given. So nothing that the file names is ever called.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_PLAIN = re.compile(r"[iu][1248]|U[1-9][0-9]*")
"""What NumPy calls whole numbers and texts."""


class _DType:
    """Stands in for numpy.dtype."""

    def __init__(self, name: str = "", *_: object) -> None:
        self.name, self._order = name, "<"

    def __setstate__(self, state: tuple) -> None:
        self._order = ">" if state[1] == ">" else "<"

    def is_plain(self) -> bool:
        return _PLAIN.fullmatch(self.name) is not None

    def values(self, held: bytes) -> np.ndarray:
        """The plain values in these bytes, in a row."""
        return np.frombuffer(held, np.dtype(self._order + self.name))


class _Array(list):
    """Stands in for an array: its objects, whole numbers or texts, in lists of its shape.

    Of other numbers, which are many and not asked for, nothing is kept but their kind.
    """

    unread = ""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, by_columns, held = state
        if isinstance(held, list):
            row = _row_of_objects(held)
        elif dtype.is_plain():
            row = dtype.values(held)
        else:
            self.unread = dtype.name
            return
        self[:] = np.atleast_1d(row.reshape(shape, order="F" if by_columns else "C")).tolist()

    def __iter__(self) -> Iterator[Any]:
        if self.unread:
            raise ValueError(
                f"an array is of type {self.unread!r}; whole numbers and texts can be read"
            )
        return super().__iter__()


class _ArrayType:
    """Stands in for the class numpy.ndarray, which is only handed on."""


def _row_of_objects(held: list) -> np.ndarray:
    row = np.empty(len(held), object)
    for place, value in enumerate(held):  # all at once NumPy would look into lists
        row[place] = value
    return row


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _DType, held: bytes) -> int | str:
    if not dtype.is_plain():
        raise pickle.UnpicklingError(f"it holds a value of type {dtype.name!r}")
    (value,) = dtype.values(held).tolist()
    return value


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

    Arrays of whole numbers, texts and objects come out as lists; to iterate over others is a
    ValueError. Raises FileNotFoundError, or ValueError naming the file where it is of another kind,
    damaged, or names anything but plain values.
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
            (value,) = _Reader(stream).load()
        except Exception as error:  # a damaged pickle fails in many ways
            raise ValueError(f"{file} cannot be read: {error}.") from error
    return value
