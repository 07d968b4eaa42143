"""The commanded side: velocities, target poses and gripper openings."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from rclpy.clock import ROSClock

from deer_ros.control.command import Command, GripperCommand
from deer_ros.nodes.policy.commander import Commander
from deer_ros.nodes.policy.outputs import Outputs
from deer_ros.stepping.settings import Settings
from deer_ros.stepping.stepper import Account


class Actuation:
    """Sends commands. Not for two threads at once, but for `tick`.

    lock: of whoever calls; it is held while anything is sent, also by the commander's thread.
    failed: told when that thread could not make a command; zero has gone out then.
    """

    def __init__(
        self, clock: ROSClock, outputs: Outputs, settings: Settings, lock: threading.RLock,
        failed: Callable[[Exception], None],
    ) -> None:
        self._outputs = outputs
        self._gripper = GripperCommand()
        self._commander = Commander(
            clock, outputs.twist, settings.command_rate, settings.safety_input_timeout, lock,
            failed)

    def obey(self, settings: Settings) -> None:
        """New rates and times."""
        self._commander.set_times(settings.command_rate, settings.safety_input_timeout)

    def send(self, account: Account, command: Command, further: Iterator[Command]) -> None:
        """Send the velocity for as long as it holds, the target, and the gripper if it changes.

        further: commands for the control periods after the first, sent when their time has come.
        """
        plan = account.plan
        opening = self._gripper.update(
            account.step.gripper_probability, plan.settings.gripper_hysteresis, account.episode)
        self._commander.hold(command, plan.semantics.period_s, map(self._aim, further))
        self._aim(command)
        if opening is not None:
            self._outputs.gripper(opening)

    def _aim(self, command: Command) -> Command:
        """Send a command's target, where it has one."""
        if command.target is not None:
            self._outputs.target_pose(command.target)
        return command

    def stop(self) -> None:
        """Send zero now."""
        # While the policy does not move the gripper, somebody else may.
        self._gripper.repeat()
        self._commander.stop()

    def tick(self) -> None:
        """Simulated time has moved. May be called from any thread."""
        self._commander.tick()

    def close(self) -> None:
        """Send nothing any more."""
        self._commander.close()
