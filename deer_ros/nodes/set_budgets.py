"""Asks a running policy node for other budgets, all at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python

NAME = re.compile(r"/?[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)
MOST_LETTERS = 200  # ROS has room for 247, its services' own names among them


def set_parameters(
    node: str, values: Mapping[str, Any], names: Sequence[str], timeout_s: float
) -> tuple[str | None, dict[str, Any]]:
    """Set `values` atomically, or nothing where there are none, and ask what `names` are then.

    Returns the reason of a refusal, None where all were taken; and what is in force, by name.
    Raises ValueError for what is no node's name, or a node without these parameters; TimeoutError
    where it does not answer.
    """
    if len(node) > MOST_LETTERS or NAME.fullmatch(node) is None:
        raise ValueError(
            f"{node[:MOST_LETTERS]!r} is no name of a node; one is /deer, or /robot_1/deer."
        )
    node = "/" + node.removeprefix("/")
    with _asking(timeout_s) as ask:
        refusal = None
        if values:
            messages = [Parameter(name, value=value).to_parameter_msg()
                        for name, value in values.items()]
            request = SetParametersAtomically.Request(parameters=messages)
            name = f"{node}/set_parameters_atomically"
            result = ask(SetParametersAtomically, name, request).result
            refusal = None if result.successful else result.reason
        request = GetParameters.Request(names=list(names))
        found = ask(GetParameters, f"{node}/get_parameters", request).values
    in_force = dict(zip(names, map(parameter_value_to_python, found)))
    if list(in_force) != list(names) or None in in_force.values():
        raise ValueError(f"the node {node} has no budgets; is it a policy_node?")
    return refusal, in_force


@contextmanager
def _asking(timeout_s: float) -> Iterator[Any]:
    """A function that calls services, within a node of its own."""
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        own = Node("deer_set", context=context, use_global_arguments=False,
                   start_parameter_services=False)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(own)

        def ask(kind: type, name: str, request: Any) -> Any:
            client = own.create_client(kind, name)
            future = None
            if client.wait_for_service(timeout_s):
                future = client.call_async(request)
                executor.spin_until_future_complete(future, timeout_s)
            if future is None or not future.done():
                raise TimeoutError(
                    f"{name} has not answered for {timeout_s:g} s. Is the node running, in this "
                    "ROS domain? `ros2 node list` tells which are; --node names another."
                )
            return future.result()

        yield ask
        executor.shutdown()
        own.destroy_node()
    finally:
        rclpy.try_shutdown(context=context)
