"""The two cameras of the simulated robot, rendered off screen."""

from __future__ import annotations

import atexit
import os
import weakref

import mujoco
import numpy as np

SMALLEST_SIDE, LARGEST_SIDE = 16, 2048
_WRIST_CAMERA = "gripperPOV"


class Cameras:
    """A fixed camera that sees the whole table and one at the wrist.

    An OpenGL context belongs to the thread that made it: render in the thread that called
    the constructor.
    """

    def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
        """Raises OSError where OpenGL is there but cannot draw, as without a display."""
        check_picture_size(height, width)
        # Anti-aliasing and shadows cost a software renderer ten times the picture itself.
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        model.vis.global_.offheight = height
        model.vis.global_.offwidth = width
        self._renderer = _renderer(model, height, width)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._static = _static_camera()
        self.close = weakref.finalize(self, self._renderer.close)
        # At the end of the process before OpenGL's own end, which registered itself just now.
        atexit.register(self.close)

    def pictures(self, data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
        """The static and the wrist camera's picture, each uint8 (height, width, 3) RGB."""
        return self._picture(data, self._static), self._picture(data, _WRIST_CAMERA)

    def _picture(self, data: mujoco.MjData, camera: mujoco.MjvCamera | str) -> np.ndarray:
        self._renderer.update_scene(data, camera)
        return self._renderer.render()


def _renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    try:
        return mujoco.Renderer(model, height, width)
    except (mujoco.FatalError, RuntimeError) as error:
        raise OSError(
            f"MuJoCo cannot draw with MUJOCO_GL={os.environ.get('MUJOCO_GL')}: {error}. "
            "Without a display or a graphics card set MUJOCO_GL=osmesa."
        ) from error


def check_picture_size(height: int, width: int) -> None:
    """ValueError unless both sides are within the limits of the off-screen buffer."""
    for name, value in (("height", height), ("width", width)):
        if not SMALLEST_SIDE <= value <= LARGEST_SIDE:
            raise ValueError(
                f"picture {name} is {value}; it must be from {SMALLEST_SIDE} to {LARGEST_SIDE}"
            )


def _static_camera() -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = (0.0, 0.68, 0.12)
    camera.distance = 1.05
    camera.azimuth = 140.0
    camera.elevation = -35.0
    return camera
