"""What decides whether an exit is taken: action consistency, how far two successive exits disagree
about the pose, or what the head itself guesses (`learned`).

The gripper plays no part, as in the original (Yue et al. 2024, DeeR-VLA, equation 3). What the
paper writes as a Euclidean norm is the root mean square in the authors' code, and so here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deer_ros.model.config import LEARNED, METRICS


def _l2(pose: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean((pose - reference) ** 2, axis=-1))


def _mean(pose: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.mean(np.abs(pose - reference), axis=-1)


def _max(pose: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.max(np.abs(pose - reference), axis=-1)


def _cosine(pose: np.ndarray, reference: np.ndarray) -> np.ndarray:
    # Each norm has torch.nn.functional.cosine_similarity's floor, so that a zero pose is no NaN.
    norms = (np.maximum(np.linalg.norm(x, axis=-1), 1e-8) for x in (pose, reference))
    product = np.sum(pose * reference, axis=-1)
    for norm in norms:
        product = product / norm
    return np.float32(1) - product


_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "l2": _l2,
    "mean": _mean,
    "max": _max,
    "cosine": _cosine,
}


def delta(pose: np.ndarray, reference: np.ndarray, metric: str = "l2") -> np.ndarray:
    """Difference of two poses (..., 6) float32 -> (...) float32, under `metric`.

    `l2` root mean square, `mean` mean absolute, `max` largest absolute difference, `cosine` one
    minus the cosine similarity. Raises ValueError for a metric that compares no two poses.
    """
    if metric not in _METRICS:
        raise ValueError(f"metric is {metric!r}; allowed are {', '.join(_METRICS)}.")
    difference = _METRICS[metric](np.asarray(pose, np.float32), np.asarray(reference, np.float32))
    return np.float32(difference) if np.ndim(difference) == 0 else difference


def check_metric(metric: str) -> None:
    """Raise ValueError unless there is such a metric."""
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}; allowed are {', '.join(METRICS)}.")


def values(
    poses: np.ndarray,
    reference: np.ndarray | None,
    expected_losses: np.ndarray | None,
    metric: str,
) -> np.ndarray:
    """The criterion's value at each of E exits that have all answered: float32 (n, E).

    poses: (n, E, 6). reference: (n, 6), what the first is compared with; None makes its value NaN.
    expected_losses: (n, E), the head's guesses; needed for `learned` only.
    """
    check_metric(metric)
    if metric == LEARNED:
        if expected_losses is None:
            raise ValueError(f"the metric is {LEARNED}, but there are no guesses of a head's gate.")
        return expected_losses
    found = np.full(poses.shape[:2], np.nan, np.float32)
    if reference is not None:
        found[:, 0] = delta(poses[:, 0], reference, metric)
    found[:, 1:] = delta(poses[:, 1:], poses[:, :-1], metric)
    return found


def agrees(difference: float, threshold: float) -> bool:
    """Whether an exit is taken. A NaN difference never is."""
    return bool(difference <= threshold)
