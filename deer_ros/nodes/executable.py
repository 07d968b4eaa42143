"""What the executables of all nodes share: how they start, go on, and say why they do not."""

from __future__ import annotations

import gc
import sys
import traceback
from importlib import import_module

from deer_ros.nodes.children import end_with_parent
from deer_ros.nodes.transport import prepare_for_pictures

USAGE_ERROR = 2


def start(name: str) -> int:
    """Run `main()` of the node module `name` and return its exit code.

    What the node needs and does not find is said in one line, with exit code 2.
    """
    end_with_parent()
    try:
        _check_ros()
        module = import_module(f"deer_ros.nodes.{name}")
    except ImportError as error:
        print(f"{name}: {_missing(error)}", file=sys.stderr)
        return USAGE_ERROR
    except OSError as error:
        # A library of the system is missing, and the sentence says which.
        print(f"{name}: {error}", file=sys.stderr)
        return USAGE_ERROR
    prepare_for_pictures()
    code = module.main() or 0
    # A node that a constructor gave up half-made lives on in a cycle, and so do DDS's threads: they
    # crash now and then while the process is taken down around them.
    gc.collect()
    return code


def refused(name: str, error: Exception) -> int:
    """Say in one line why a node did not start, and end rclpy; the exit code.

    What is neither a bad value, nor a file, nor rclpy's complaint is raised anew.
    """
    is_rclpys = type(error).__module__.startswith("rclpy")
    if not (is_rclpys or isinstance(error, (ValueError, OSError))):
        raise error
    # rclpy's own complaints are about the command line or a parameter file, and lengthy.
    print(f"{name}: {str(error).splitlines()[0] if is_rclpys else error}", file=sys.stderr)
    import_module("rclpy").try_shutdown()
    return USAGE_ERROR


def spin_once(executor, node, timeout_s: float) -> None:
    """Run the callback that is ready first. One that fails is told of, and the node goes on."""
    try:
        executor.spin_once(timeout_sec=timeout_s)
    except Exception:
        if not executor.context.ok():
            raise
        node.get_logger().error(f"a callback failed:\n{traceback.format_exc()}")


def _check_ros() -> None:
    import_module("rclpy")
    import_module("deer_ros.msg")
    import_module("deer_ros.action")


def _missing(error: ImportError) -> str:
    if error.name == "rclpy":
        return (
            "ROS 2 (rclpy) is not installed in this Python. "
            "Run make setup, or source a ROS 2 installation's setup.bash."
        )
    if error.name in ("deer_ros.msg", "deer_ros.action"):
        return (
            "the messages and actions of deer_ros are not built or not on the path. "
            "Run colcon build, then source install/setup.bash."
        )
    if isinstance(error, ModuleNotFoundError):
        return (
            f"the Python module {error.name} is not installed. Run make setup, or, on a ROS 2 "
            "installation, activate the virtual environment that has "
            "requirements/ros-installation.txt; README.md says how to make one."
        )
    return f"a module could not be loaded: {error}"
