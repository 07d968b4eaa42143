"""Listens to topics as their publishers speak, and hands the bytes on as they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from rosbags.typesys import get_types_from_msg

from deer_ros.data import own_messages
from deer_ros.data.rolling_bag import Channel
from deer_ros.nodes.installed_types import definition_file, message_class
from deer_ros.nodes.qos import QUIET, as_recorded

# Messages that may wait while the executor is busy.
DEPTH = 200
RECENT = 16

VOLATILE, LATCHED = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL


class TopicSubscriptions:
    """One topic: a subscription for its volatile publishers, and one for its latched ones.

    A latched publisher reaches both, so what comes a second time is dropped. `look` is to be called
    often: publishers come and go. problem: what of it is not recorded now, and why.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        take: Callable[[Channel, bytes], None],
        definitions: Definitions,
    ) -> None:
        self.name = name
        self.problem: str | None = None
        self._node = node
        self._take = take
        self._definitions = definitions
        self._channel: Channel | None = None
        self._is_empty = True
        self._open: dict[DurabilityPolicy, tuple[ReliabilityPolicy, Subscription]] = {}
        self._recent: dict[DurabilityPolicy, deque[bytes]] = {
            durability: deque(maxlen=RECENT) for durability in (VOLATILE, LATCHED)}

    def look(self) -> None:
        """Subscribe as the publishers of now ask for."""
        publishers = self._node.get_publishers_info_by_topic(self.name)
        if not publishers:
            return
        kinds = sorted({publisher.topic_type for publisher in publishers})
        if self._is_empty and self._channel is not None and self._channel.kind not in kinds:
            self._forget()
        if self._channel is None:
            try:
                self._begin(kinds, publishers)
            except ValueError as error:
                self.problem = str(error)
                return
        others = [kind for kind in kinds if kind != self._channel.kind]
        self.problem = (f"messages of {', '.join(others)} beside those of {self._channel.kind}"
                        if others else None)
        offered: dict[DurabilityPolicy, list[ReliabilityPolicy]] = {}
        for publisher in publishers:
            if publisher.topic_type == self._channel.kind:
                profile = publisher.qos_profile
                durability = LATCHED if profile.durability is LATCHED else VOLATILE
                offered.setdefault(durability, []).append(profile.reliability)
        for durability, reliabilities in offered.items():
            is_reliable = all(each is ReliabilityPolicy.RELIABLE for each in reliabilities)
            self._subscribe(durability, ReliabilityPolicy.RELIABLE if is_reliable
                            else ReliabilityPolicy.BEST_EFFORT)

    def _begin(self, kinds: list[str], publishers) -> None:
        if len(kinds) > 1:
            raise ValueError(f"it has several message types ({', '.join(kinds)})")
        message_class(kinds[0])
        definition, digest = self._definitions.of(kinds[0])
        qos = tuple(dict.fromkeys(as_recorded(each.qos_profile) for each in publishers))
        topic = self._node.resolve_topic_name(self.name)
        self._channel = Channel(topic, kinds[0], definition, digest, qos)

    def _forget(self) -> None:
        """A publisher of another type was there, said nothing and is gone."""
        for _, subscription in self._open.values():
            self._node.destroy_subscription(subscription)
        self._open.clear()
        self._channel = None

    def _subscribe(self, durability: DurabilityPolicy, reliability: ReliabilityPolicy) -> None:
        known = self._open.get(durability)
        if known is not None:
            if known[0] is reliability:
                return
            self._node.destroy_subscription(known[1])
        qos = QoSProfile(depth=DEPTH, durability=durability, reliability=reliability)
        subscription = self._node.create_subscription(
            message_class(self._channel.kind), self.name, self._receiver(durability), qos, raw=True,
            event_callbacks=QUIET)
        self._open[durability] = reliability, subscription

    def _receiver(self, durability: DurabilityPolicy) -> Callable[[bytes], None]:
        channel = self._channel

        def receive(data: bytes) -> None:
            if len(self._open) > 1:
                other = self._recent[LATCHED if durability is VOLATILE else VOLATILE]
                if data in other:
                    other.remove(data)
                    return
                self._recent[durability].append(data)
            self._is_empty = False
            self._take(channel, data)

        return receive


class Definitions:
    """Definitions of message types, with those of their parts, from the installed packages."""

    def __init__(self) -> None:
        self._types = own_messages.typestore()

    def of(self, kind: str) -> tuple[str, str]:
        """Definition and RIHS01 hash; both empty where nothing says how the type is defined."""
        try:
            self._learn(kind)
            return own_messages.definition(self._types, kind)
        except Exception:  # the parser's errors are many; without its definition it is recorded too
            return "", ""

    def _learn(self, kind: str) -> None:
        if kind in self._types.fielddefs:
            return
        types = get_types_from_msg(definition_file(kind).read_text(encoding="utf-8"), kind)
        for part in _parts(types):
            self._learn(part)
        self._types.register(types)


def _parts(value) -> set[str]:
    """The message types that fields are of."""
    if isinstance(value, str):
        return {value} if "/msg/" in value else set()
    if isinstance(value, dict):
        return set().union(*(_parts(fields) for _, fields in value.values()))
    if isinstance(value, (tuple, list)):
        return set().union(set(), *(_parts(item) for item in value))
    return set()
