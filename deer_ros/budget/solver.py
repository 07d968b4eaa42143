"""Thresholds from a wish: which share of the steps shall leave at each exit.

The authors' way (Yue et al. 2024, section 3.2 and their released solver): a one-parameter family
says the shares, and each threshold is the value that lets that share of the demonstrations' steps
pass. Counts are kept in float32, as theirs are: float64 moves some of them by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FAMILIES = ("exponential", "gaussian", "gamma")
NEVER = -1e8
ALWAYS = 1e8


def finite(thresholds: Sequence[float]) -> tuple[float, ...]:
    """The same thresholds for a file of JSON, which has no word for infinity."""
    return tuple(max(NEVER, min(float(t), ALWAYS)) for t in thresholds)


def family_shares(
    family: str, parameter: float, exits: int, first_exit: bool = True
) -> np.ndarray:
    """Share of the steps that shall leave at each of `exits` exits: float32 (exits,), sum 1.

    family: `exponential` r^k, k from 1 (below 1: early exits, 1: all alike, above 1: late ones);
    `gaussian` around exit number r, counted from 0, with deviation 1; `gamma` of shape r, scale 2,
    at 1 .. exits. first_exit: False leaves the first exit out, as the authors do for their model of
    9 billion. Raises ValueError for another family, or a parameter that gives no shares.
    """
    if family not in FAMILIES:
        raise ValueError(f"the family is {family!r}; allowed are {', '.join(FAMILIES)}.")
    if not (math.isfinite(parameter) and (parameter > 0 or family == "gaussian")):
        raise ValueError(f"the {family} family's parameter is {parameter}; it must be above 0.")
    number = np.arange(1, exits + 1, dtype=np.float64)
    if family == "exponential":
        with np.errstate(over="ignore"):  # what overflows is refused below
            weights = np.float32(parameter) ** number.astype(np.float32)
    elif family == "gaussian":
        weights = np.exp(-((number - 1 - parameter) ** 2) / 2)
    else:
        scale = 2.0
        log_density = (parameter - 1) * np.log(number) - number / scale
        weights = np.exp(log_density - math.lgamma(parameter) - parameter * math.log(scale))
    weights = weights.astype(np.float32)
    if not first_exit:
        weights[0] = 0
    total = weights.sum()
    if not (np.isfinite(total) and total > 0):
        raise ValueError(
            f"the {family} family with parameter {parameter} gives {exits} exits no shares that "
            "can be counted; choose a parameter nearer to 1."
        )
    return weights / total


def thresholds_for(deltas: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Thresholds (K,) float32 that let `shares` (K,) of the samples leave at each exit.

    deltas: (K, n) float32, the criterion's value at every permitted exit. In order of depth, the
    exit's smallest values among the samples that have not left yet set its threshold; samples with
    equal values leave with them. An exit that gets no sample, or for which too few are left, is
    `NEVER`; the last is `ALWAYS`. Raises ValueError where the shapes do not fit.
    """
    return solve_shares(deltas, shares)[0]


def solve_shares(deltas: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """`thresholds_for`, and which samples leave at each exit: K arrays of indices."""
    if deltas.ndim != 2 or shares.shape != deltas.shape[:1] or 0 in deltas.shape:
        raise ValueError(
            f"deltas have shape {deltas.shape} and shares {shares.shape}; they must be (exits, "
            "samples) and (exits,), and not empty."
        )
    wanted = np.floor(np.float32(deltas.shape[1]) * shares.astype(np.float32)).astype(np.int64)
    thresholds = np.full(len(shares), NEVER, np.float32)
    thresholds[-1] = ALWAYS
    staying = np.arange(deltas.shape[1])
    taken = []
    for exit_number, count in enumerate(wanted[:-1]):
        leave = np.zeros(len(staying), bool)
        if 0 < count <= len(staying):
            values = deltas[exit_number].take(staying)
            thresholds[exit_number] = np.partition(values, count - 1)[count - 1]
            leave = values <= thresholds[exit_number]
        taken.append(staying[leave])
        staying = staying[~leave]
    return thresholds, [*taken, staying]


def exits_taken(deltas: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Number of the exit at which each sample leaves, int64 (n,); the last takes the rest.

    deltas: (K, n). thresholds: (K,). A NaN delta never leaves.
    """
    agrees = deltas <= thresholds[:, None]
    agrees[-1] = True
    return agrees.argmax(axis=0)


def leaving(deltas: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many samples leave at each exit, int64 (K,); the last takes the rest. deltas: (K, n)."""
    return np.bincount(exits_taken(deltas, thresholds), minlength=len(thresholds))
