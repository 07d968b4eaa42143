"""A ROS domain of a test's own, with a node in this process."""

from __future__ import annotations

import contextlib
import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from deer_ros.nodes.domain import isolate, reserved_domain

WAIT_S = 180.0


class Graph:
    """node: of this process; its callbacks run while `wait_until` waits."""

    def __init__(self, domain: int):
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("watcher", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def wait_until(self, condition, timeout_s: float = WAIT_S, said=lambda: "") -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, f"waited in vain. {said()}"
            self._executor.spin_once(timeout_sec=0.005)

    def call(self, kind, name: str, request):
        client = self.node.create_client(kind, name)
        self.wait_until(client.service_is_ready)
        future = client.call_async(request)
        self.wait_until(future.done)
        return future.result()

    def listen(self, kind, topic: str, *, latched: bool = False, raw: bool = True,
               reliable: bool = True) -> list:
        """A list that messages are added to as they come."""
        found: list = []
        qos = QoSProfile(
            depth=1000,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE)
        self.node.create_subscription(kind, topic, found.append, qos, raw=raw)
        return found

    def rest(self, duration_s: float) -> None:
        """Let time pass."""
        end_s = time.monotonic() + duration_s
        self.wait_until(lambda: time.monotonic() >= end_s)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)


def same_bytes(came: list[bytes], sent: list[bytes]) -> bool:
    """DDS fills messages up to a multiple of four bytes."""
    return len(came) == len(sent) and all(
        a[:len(b)] == b and len(a) - len(b) < 4 for a, b in zip(came, sent))


@contextlib.contextmanager
def isolated_graph():
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"):
            patch.setenv(name, "")
        domain = stack.enter_context(reserved_domain())
        isolate(domain)
        graph = Graph(domain)
        stack.callback(graph.close)
        yield graph
