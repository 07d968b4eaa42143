"""The simulated robot's account of its episode: steps, success, end."""

from __future__ import annotations

from collections.abc import Callable

from deer_ros.nodes.simulator.outputs import SimOutputs
from deer_ros.sim.robot import SimulatedRobot


class SimEpisode:
    """Counts the control steps since the reset and publishes each of them on `~/episode`."""

    def __init__(self, robot: SimulatedRobot, outputs: SimOutputs, max_steps: Callable[[], int]):
        self._robot = robot
        self._outputs = outputs
        self._max_steps = max_steps
        self._seed = 0
        self._resets = 0
        self._steps = 0
        self.done = False
        """Success, or out of steps; decided and published at the end of a control step."""

    def restart(self, seed: int, stamp_ns: int) -> None:
        self._seed = seed
        self._resets += 1
        self._steps = 0
        self.done = False
        self._publish(stamp_ns)

    def count_step(self, stamp_ns: int) -> None:
        self._steps += 1
        self.done = bool(self._robot.success) or self._steps >= self._max_steps()
        self._publish(stamp_ns)

    def _publish(self, stamp_ns: int) -> None:
        self._outputs.publish_episode(stamp_ns, self._seed, self._resets, self._steps, self.done)
