"""The table of settings as ROS parameters: declared, checked, and turned into snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from deer_ros.model.config import DeerConfig
from deer_ros.stepping.settings import FIELDS, ROWS, Settings, default_thresholds
from deer_ros.stepping.table import LIVE, START, Row
from deer_ros.stepping.unknown import misspelled

THRESHOLDS = "exit.thresholds"


class NodeParameters:
    """Holds the settings in force. Used in the executor's thread; `settings` may be read in any.

    check(settings, names) is called before a change is accepted, and raises ValueError to refuse
    it; on_change(settings, names) afterwards. A wrong value at start is reported in one line, and
    no model is accepted until it is set anew, as a robot must not run without a limit that was
    asked for. Of thresholds, and of what counts only at start, the default is used. A misspelled
    name cannot be set anew: the node is to be started again without it.
    """

    def __init__(
        self,
        node: Node,
        check: Callable[[Settings, frozenset[str]], None],
        on_change: Callable[[Settings, frozenset[str]], None],
    ) -> None:
        self.settings = Settings()
        self._node = node
        self._check = check
        self._on_change = on_change
        self._config: DeerConfig | None = None
        self._declaring = False
        self._wrong: dict[str, str] = {}
        self._models_own: tuple[float, ...] = ()
        # rclpy keeps to itself what was given and never declared.
        self._misspelled = misspelled(getattr(node, "_parameter_overrides", {}))
        for sentence in self._misspelled.values():
            node.get_logger().error(f"{sentence} The node stays unconfigured.")
        for row in ROWS.values():
            if row.name != THRESHOLDS:
                self._declare(row, row.default)
        node.add_on_set_parameters_callback(self._on_set)

    def check_model(self, config: DeerConfig) -> None:
        """From now on changes must suit this model. Raises ValueError if the settings do not.

        The thresholds become a parameter with the first model, as only then their number is known.
        """
        if self._misspelled:
            raise ValueError(
                f"{' '.join(self._misspelled.values())} Correct the name in the parameter file or "
                "on the command line, and start the node again."
            )
        if self._wrong:
            raise ValueError(
                f"what was given at start is wrong: {' '.join(self._wrong.values())} To be set "
                f"anew: {', '.join(self._wrong)}."
            )
        default = default_thresholds(config)
        given = self.settings.exit_thresholds
        if given and len(given) != len(default):
            self._node.get_logger().warning(
                f"{THRESHOLDS} had {len(given)} numbers, for another model: it has this model's "
                f"own {len(default)} now."
            )
        if len(given) != len(default) or given == self._models_own:
            self._set_default(ROWS[THRESHOLDS], default)
        self._models_own = default
        if not self._node.has_parameter(THRESHOLDS):
            self._config = config
            self._declare(ROWS[THRESHOLDS], default)
        self.settings.check_whole(config)
        self._config = config

    def forget_model(self) -> None:
        """No model is loaded any more: what may only be set while unconfigured may be set."""
        self._config = None

    def _declare(self, row: Row, default: Any) -> None:
        """Declare one parameter; what the command line or a file says counts if it is right."""
        descriptor = ParameterDescriptor(
            description=row.meaning,
            additional_constraints=f"{row.allowed.words}; may be set: {row.change}",
            # Lets a whole number through where a fraction is asked for; Row.convert checks types.
            dynamic_typing=True,
        )
        self._declaring = True
        try:
            value = self._node.declare_parameter(row.name, _plain(default), descriptor).value
        finally:
            self._declaring = False
        try:
            self._take({row.name: value})
        except ValueError as error:
            consequence = f"The default is used: {_plain(default)!r}."
            if row.change != START and row.name != THRESHOLDS:
                self._wrong[row.name] = str(error)
                consequence = "The node stays unconfigured until it is set anew."
            self._node.get_logger().error(f"{error} {consequence}")
            self._set_default(row, default)

    def _set_default(self, row: Row, default: Any) -> None:
        self._take({row.name: default}, check=False)
        if self._node.has_parameter(row.name):
            self._declaring = True
            try:
                self._node.set_parameters([Parameter(row.name, value=_plain(default))])
            finally:
                self._declaring = False

    def _take(self, changes: Mapping[str, Any], check: bool = True) -> None:
        self.settings = self.settings.replaced(changes, self._config if check else None)

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters if p.name in ROWS}
        if self._declaring or not changes:
            return SetParametersResult(successful=True)
        try:
            self._check_moment(changes)
            settings = self.settings.replaced(changes, self._config)
            self._check(settings, frozenset(changes))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.settings = settings
        for name in changes:
            self._wrong.pop(name, None)
        self._on_change(self.settings, frozenset(changes))
        return SetParametersResult(successful=True)

    def _check_moment(self, changes: Mapping[str, Any]) -> None:
        for name, value in changes.items():
            row = ROWS[name]
            if row.convert(value) == getattr(self.settings, FIELDS[name]) or row.change == LIVE:
                continue
            if row.change == START:
                raise ValueError(
                    f"{name} counts only at start; set it in the parameter file or on the command "
                    "line."
                )
            if self._config is not None:
                raise ValueError(
                    f"{name} can only be set while the node is unconfigured; deactivate it and "
                    "clean it up first (lifecycle transitions `deactivate` and `cleanup`)."
                )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
