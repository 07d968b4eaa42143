"""Single pictures out of video files, by their time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deer_ros.data.frames import Resize


def read_frames(
    file: Path, seconds: np.ndarray, tolerance_s: float, resize: Resize | None = None
) -> np.ndarray:
    """The pictures nearest to these growing times, uint8 (T, height, width, 3) RGB.

    resize: what is kept of every picture, from when it is read; None: all of it.
    Raises ValueError, naming the file, where it is missing or damaged, or has no picture within
    `tolerance_s` of a time, and where PyAV is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise ValueError(
            "videos are read with the Python module av, which is not installed: pip install -r "
            "requirements/lerobot.txt."
        ) from error
    if not file.is_file():
        raise ValueError(f"{file} is missing.")
    try:
        with av.open(str(file)) as container:
            return _nearest(container, file, seconds, tolerance_s, resize)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(f"{file} cannot be read as a video: {error}.") from error


def _nearest(
    container, file: Path, seconds: np.ndarray, tolerance_s: float, resize: Resize | None
) -> np.ndarray:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    # To the key picture at or before the first time; what lies between is decoded and dropped.
    start = max(0.0, float(seconds[0]) - tolerance_s)
    container.seek(int(start / stream.time_base), stream=stream)
    chosen: list[np.ndarray | None] = [None] * len(seconds)
    distances = np.full(len(seconds), np.inf)
    for frame in container.decode(stream):
        if frame.time is None or frame.time < seconds[0] - tolerance_s:
            continue
        if frame.time > seconds[-1] + tolerance_s:
            break
        apart = np.abs(seconds - frame.time)
        nearer = np.flatnonzero((apart <= tolerance_s) & (apart < distances))
        if len(nearer):
            picture = frame.to_ndarray(format="rgb24")
            if resize is not None:
                picture = resize(picture)
            for index in nearer:
                chosen[index], distances[index] = picture, apart[index]
    missing = [float(time) for time, picture in zip(seconds, chosen) if picture is None]
    if missing:
        raise ValueError(f"{file} has no picture at {missing[0]:.3f} s ({len(missing)} missing).")
    return np.stack(chosen)
