"""A ROS domain that nobody on this machine uses, so that a demo never talks to a running robot."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Above 101 the ports of a domain can collide with those that Linux hands out by itself.
FREE_DOMAINS = range(1, 102)

# The ports that the RTPS standard gives to the participants of a domain.
PORT_BASE, PORTS_PER_DOMAIN, UNICAST_OFFSET, PORTS_PER_PARTICIPANT = 7400, 250, 10, 2
# The participant whose port is held to say "taken". DDS counts participants up from 0.
RESERVED_PARTICIPANT = 119
PROBED_PARTICIPANTS = 8


@contextmanager
def reserved_domain() -> Iterator[int]:
    """A domain without participants on this machine; others that ask here get another one.

    OSError if all are in use.
    """
    candidates = list(FREE_DOMAINS)
    random.shuffle(candidates)
    for domain in candidates:
        held = _hold(domain, RESERVED_PARTICIPANT)
        if held is None:
            continue
        with held:
            if not _is_used(domain):
                yield domain
                return
    raise OSError("every ROS domain from 1 to 101 is in use on this machine; choose one yourself")


def isolate(domain: int) -> None:
    """This process and those it starts use the domain, and on this machine only."""
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    if os.environ.get("ROS_DISTRO") == "humble":
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
    else:
        # Later releases warn about the older variable and let it win.
        os.environ.pop("ROS_LOCALHOST_ONLY", None)
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


def _is_used(domain: int) -> bool:
    for participant in range(PROBED_PARTICIPANTS):
        probe = _hold(domain, participant)
        if probe is None:
            return True
        probe.close()
    return False


def _hold(domain: int, participant: int) -> socket.socket | None:
    """The participant's discovery port, bound; None if another process has it."""
    port = (PORT_BASE + PORTS_PER_DOMAIN * domain + UNICAST_OFFSET
            + PORTS_PER_PARTICIPANT * participant)
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        held.bind(("", port))
    except OSError:
        held.close()
        return None
    return held
