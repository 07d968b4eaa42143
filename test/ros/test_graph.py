"""Everything by which the node can be reached, against the policy file for SROS2."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from policy_client import running_policy
from tiny_model import write_tiny_model

from deer_ros.resources import share

# Subscribed to in one of two ways, and only by nodes on simulated time.
AT_TIMES = {"/camera/static/image/compressed", "/camera/gripper/image/compressed", "/clock",
            "/parameter_events"}


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    with running_policy(folder, model=str(write_tiny_model(folder / "model"))) as client:
        client.wait_until(lambda: client.state() == "active")
        yield client


def allowed(kind: str, how: str) -> set[str]:
    root = ElementTree.parse(share("config", "sros2_policy.xml")).getroot()
    return {item.text for group in root.iter(f"{kind}s") if group.get(how) == "ALLOW"
            for item in group}


def names(pairs) -> set[str]:
    return {name for name, _types in pairs if "/_action/" not in name}


def test_the_policy_file_allows_what_the_node_says_and_hears_and_nothing_else(node):
    ask = node.node
    # What is asked for comes bit by bit.
    node.wait_until(lambda: names(ask.get_subscriber_names_and_types_by_node("deer", "/"))
                    >= allowed("topic", "subscribe") - AT_TIMES
                    and names(ask.get_publisher_names_and_types_by_node("deer", "/"))
                    >= allowed("topic", "publish"))
    heard = names(ask.get_subscriber_names_and_types_by_node("deer", "/"))
    assert heard - AT_TIMES == allowed("topic", "subscribe") - AT_TIMES
    assert names(ask.get_publisher_names_and_types_by_node("deer", "/")) == (
        allowed("topic", "publish"))


def test_the_policy_file_allows_the_nodes_services_and_its_action_and_nothing_else(node):
    ask = node.node

    def actions() -> set[str]:
        return {name.partition("/_action/")[0]
                for name, _types in ask.get_service_names_and_types_by_node("deer", "/")
                if "/_action/" in name}

    node.wait_until(lambda: actions() >= allowed("action", "execute")
                    and names(ask.get_service_names_and_types_by_node("deer", "/"))
                    >= allowed("service", "reply") - {"/deer/get_type_description"})
    services = ask.get_service_names_and_types_by_node("deer", "/")
    assert names(services) - {"/deer/get_type_description"} == (
        allowed("service", "reply") - {"/deer/get_type_description"})
    assert actions() == allowed("action", "execute")
