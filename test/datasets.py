"""Small datasets in the layouts of CALVIN and LeRobot, written as those projects write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CAMERAS = ("observation.images.front", "observation.images.wrist")
SIZES = {CAMERAS[0]: (48, 64), CAMERAS[1]: (32, 32)}


def write_calvin(
    folder: Path, stretches: Sequence[tuple[str, int, int]], seed: int = 0, **changes
) -> dict[str, np.ndarray]:
    """A split; stretches: text, first and last frame. What all frames hold, by part."""
    rng = np.random.default_rng(seed)
    count = max((last for _, _, last in stretches), default=0) + 3
    frames = {
        "rgb_static": rng.integers(0, 256, (count, 20, 20, 3), np.uint8),
        "rgb_gripper": rng.integers(0, 256, (count, 12, 12, 3), np.uint8),
        "rel_actions": np.column_stack(
            [rng.uniform(-1, 1, (count, 6)), rng.choice([-1.0, 1.0], count)]
        ),
        "robot_obs": rng.normal(size=(count, 15)),
        "scene_obs": rng.normal(size=(count, 24)),
        **changes,
    }
    folder.mkdir(parents=True)
    for number in range(count):
        np.savez(
            folder / f"episode_{number:07d}.npz", **{k: v[number] for k, v in frames.items()}
        )
    write_annotations(folder, stretches)
    return frames


def write_annotations(folder: Path, stretches: Sequence[tuple[str, int, int]]) -> Path:
    file = folder / "lang_annotations" / "auto_lang_ann.npy"
    file.parent.mkdir(exist_ok=True)
    texts = [text for text, _, _ in stretches]
    np.save(file, {
        "language": {
            "ann": texts, "task": ["some_task"] * len(texts),
            "emb": np.zeros((len(texts), 1, 384), np.float32),
        },
        "info": {"episodes": [], "indx": [(a, b) for _, a, b in stretches]},
    }, allow_pickle=True)  # fmt: skip
    return file


def write_lerobot(
    folder: Path,
    lengths: Sequence[int] = (7, 5, 9),
    fps: int = 10,
    videos: bool = True,
    rows_per_file: int = 2,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Episodes of these lengths, two to a file. What all frames hold: actions, states, colours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    total = sum(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    held = {
        "action": np.column_stack([rng.uniform(-1, 1, (total, 6)), rng.choice([0.0, 1.0], total)])
        .astype(np.float32),
        "observation.state": rng.normal(size=(total, 3)).astype(np.float32),
        **{key: rng.integers(40, 216, (total, 3)) for key in CAMERAS},
    }
    files = [range(i, min(i + rows_per_file, len(lengths)))
             for i in range(0, len(lengths), rows_per_file)]  # fmt: skip
    rows = []
    for number, members in enumerate(files):
        first = starts[members[0]]
        span = slice(first, starts[members[-1] + 1])
        columns = {
            "action": list(held["action"][span]),
            "observation.state": list(held["observation.state"][span]),
            "timestamp": [np.float32(k / fps) for e in members for k in range(lengths[e])],
            "frame_index": [k for e in members for k in range(lengths[e])],
            "episode_index": [e for e in members for _ in range(lengths[e])],
            "index": list(range(span.start, span.stop)),
            "task_index": [e % 2 for e in members for _ in range(lengths[e])],
        }
        for key in CAMERAS:
            if videos:
                _write_video(_made(folder / f"videos/{key}/chunk-000/file-{number:03d}.mp4"),
                             held[key][span], SIZES[key], fps)
            else:
                columns[key] = [_image(colour, SIZES[key]) for colour in held[key][span]]
        file = _made(folder / f"data/chunk-000/file-{number:03d}.parquet")
        pq.write_table(pa.table(columns), file)
        for episode in members:
            seconds = (starts[episode] - first) / fps
            places = {"chunk_index": 0, "file_index": number}
            rows.append({
                "episode_index": episode, "tasks": [f"task {episode % 2}"],
                "length": lengths[episode],
                **{f"data/{name}": place for name, place in places.items()},
                "dataset_from_index": starts[episode], "dataset_to_index": starts[episode + 1],
                **({f"videos/{key}/{name}": place for key in CAMERAS for name, place in
                    {**places, "from_timestamp": seconds}.items()} if videos else {}),
            })  # fmt: skip
    file = _made(folder / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.Table.from_pylist(rows), file)
    tasks = pa.table({"task_index": [0, 1], "__index_level_0__": ["open it", "close it"]})
    pq.write_table(tasks, _made(folder / "meta/tasks.parquet"))
    write_info(folder, fps, videos, total_episodes=len(lengths))
    stats = {"action": {"min": [-1.0] * 6 + [0.0], "max": [1.0] * 7}}
    (folder / "meta/stats.json").write_text(json.dumps(stats))
    return held


def write_info(folder: Path, fps: int = 10, videos: bool = True, **changes) -> None:
    kind = "video" if videos else "image"
    info = {
        "codebase_version": "v3.0", "fps": fps, "total_episodes": 3,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "action": {"dtype": "float32", "shape": [7]},
            "observation.state": {"dtype": "float32", "shape": [3],
                                  "names": {"motors": ["x", "y", "z"]}},
            **{key: {"dtype": kind, "shape": [*SIZES[key], 3]} for key in CAMERAS},
        },
        **changes,
    }  # fmt: skip
    (folder / "meta/info.json").write_text(json.dumps(info))


def _made(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _image(colour: np.ndarray, size: tuple[int, int]) -> dict:
    import cv2

    picture = np.full((*size, 3), colour[::-1], np.uint8)
    return {"bytes": cv2.imencode(".png", picture)[1].tobytes(), "path": "frame.png"}


def _write_video(file: Path, colours: np.ndarray, size: tuple[int, int], fps: int) -> None:
    """A plain colour a frame, in H.264 with key pictures far apart, as videos of datasets are."""
    import av

    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "20", "crf": "5"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv444p"
        for colour in colours:
            picture = np.broadcast_to(colour.astype(np.uint8), (*size, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
