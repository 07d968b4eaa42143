"""Quality of service as bags note it, and as rclpy wants it."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # before Iron
    from rclpy.qos_event import SubscriptionEventCallbacks

# For whoever subscribes twice, to volatile and to latched publishers: one of the two always
# matches, and that the other one does not is nothing to warn of.
QUIET = SubscriptionEventCallbacks(use_default_callbacks=False)
# What a publisher keeps whose depth nobody noted: other processes are not told how much it keeps.
UNKNOWN_DEPTH = 10
_LONGEST_NS = 2**63 - 1
_SECOND_NS = 1_000_000_000


def publisher_profile(recorded: Sequence[Qos]) -> QoSProfile:
    """Offers all that the recorded publishers offered; ROS 2's default where none was noted.

    Of several the strictest counts in each respect: every subscriber that one of them suited is
    suited.
    """
    profile = QoSProfile(depth=UNKNOWN_DEPTH)
    if not recorded:
        return profile
    if not any(qos.reliability is QosReliability.RELIABLE for qos in recorded):
        profile.reliability = ReliabilityPolicy.BEST_EFFORT
    if any(qos.durability is QosDurability.TRANSIENT_LOCAL for qos in recorded):
        profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    if all(qos.history is QosHistory.KEEP_LAST and qos.depth > 0 for qos in recorded):
        profile.depth = max(qos.depth for qos in recorded)
    if len({qos.deadline for qos in recorded}) == 1:
        profile.deadline = _duration(recorded[0].deadline)
    if len({qos.lifespan for qos in recorded}) == 1:
        profile.lifespan = _duration(recorded[0].lifespan)
    return profile


def as_recorded(profile: QoSProfile) -> Qos:
    """A publisher's profile as a bag notes it."""
    return Qos(
        history=_named(QosHistory, profile.history),
        depth=profile.depth,
        reliability=_named(QosReliability, profile.reliability),
        durability=_named(QosDurability, profile.durability),
        deadline=_time(profile.deadline),
        lifespan=_time(profile.lifespan),
        liveliness=_named(QosLiveliness, profile.liveliness),
        liveliness_lease_duration=_time(profile.liveliness_lease_duration),
        avoid_ros_namespace_conventions=profile.avoid_ros_namespace_conventions,
    )


def _named(kind: type, policy: HistoryPolicy | ReliabilityPolicy | DurabilityPolicy
           | LivelinessPolicy):
    return kind.__members__.get(policy.name, kind.UNKNOWN)


def _duration(time: QosTime) -> Duration:
    return Duration(nanoseconds=min(time.sec * _SECOND_NS + time.nsec, _LONGEST_NS))


def _time(duration: Duration) -> QosTime:
    return QosTime(*divmod(duration.nanoseconds, _SECOND_NS))
