from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest

from deer_ros.evaluation.calvin_chains import (
    BLOCKS,
    Chain,
    chains,
    is_chain,
    outcomes,
    start_states,
    tasks,
)

# Of json.dumps([[start, tasks], ...]), made with the benchmark's own program and numpy 2.
OFFICIAL_224_SHA256 = "3be4921cc4fa835918a84ed8a1b5c4aa2d00c8cec4ac9ae19bc7346c0f4bd208"
START = {
    "led": 0, "lightbulb": 0, "slider": "right", "drawer": "open", "red_block": "table",
    "blue_block": "table", "pink_block": "slider_left", "grasped": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> list[Chain]:
    return chains(224)


def test_the_chains_are_the_ones_that_everybody_is_measured_on(drawn):
    text = json.dumps([[chain.start, chain.tasks] for chain in drawn])
    assert hashlib.sha256(text.encode()).hexdigest() == OFFICIAL_224_SHA256


def test_a_chain_is_five_tasks_of_five_kinds_that_can_follow_each_other(drawn):
    for chain in drawn:
        assert len(chain.tasks) == 5
        assert len({tasks()[name].kind for name in chain.tasks}) == 5
        state = chain.start
        for name in chain.tasks:
            (state,) = outcomes(state, name)


def test_the_starts_are_used_equally_often(drawn):
    counts = Counter(json.dumps(chain.start) for chain in drawn)
    assert len(counts) == len(start_states()) and set(counts.values()) <= {1, 2}


def test_fewer_chains_than_starts_can_be_drawn():
    assert len(chains(1)) == 1


def test_there_are_34_tasks():
    assert len(tasks()) == 34


def test_a_start_has_an_empty_hand_and_no_two_blocks_in_one_place_of_the_slider():
    for state in start_states():
        places = [state[block] for block in BLOCKS]
        assert state["grasped"] == 0
        assert places.count("table") in (1, 2)
        assert max(places.count("slider_left"), places.count("slider_right")) <= 1


@pytest.mark.parametrize(
    ("before", "task", "after"),
    [
        ({}, "turn_on_led", {"led": 1}),
        ({}, "close_drawer", {"drawer": "closed"}),
        ({}, "move_slider_left", {"slider": "left"}),
        ({}, "push_red_block_left", {}),
        ({}, "lift_red_block_table", {"red_block": "grasped", "grasped": 1}),
        ({}, "lift_pink_block_slider", {"pink_block": "grasped", "grasped": 1}),
        ({"red_block": "grasped", "grasped": 1}, "place_in_drawer",
         {"red_block": "drawer", "grasped": 0}),
        ({"red_block": "grasped", "grasped": 1}, "place_in_slider",
         {"red_block": "slider_right", "grasped": 0}),
        ({"red_block": "grasped", "grasped": 1}, "stack_block",
         {"red_block": "stacked_top", "blue_block": "stacked_bottom", "grasped": 0}),
        ({"red_block": "stacked_top", "blue_block": "stacked_bottom"}, "unstack_block",
         {"red_block": "table", "blue_block": "table"}),
        ({"blue_block": "slider_right"}, "push_into_drawer", {"red_block": "drawer"}),
    ],
)
def test_a_task_changes_what_it_says_and_nothing_else(before, task, after):
    state = START | before
    assert outcomes(state, task) == [state | after]


@pytest.mark.parametrize(
    ("before", "task"),
    [
        ({"led": 1}, "turn_on_led"),
        ({}, "open_drawer"),
        ({}, "move_slider_right"),
        ({"slider": "left"}, "lift_pink_block_slider"),  # behind the door
        ({}, "lift_red_block_slider"),
        ({}, "place_in_drawer"),
        ({"drawer": "closed", "red_block": "grasped", "grasped": 1}, "place_in_drawer"),
        ({"red_block": "grasped", "grasped": 1}, "turn_on_led"),
        ({"red_block": "grasped", "grasped": 1}, "lift_blue_block_table"),
        ({}, "push_into_drawer"),  # another block is in the way
        ({}, "unstack_block"),
    ],
)
def test_a_task_that_cannot_be_done_has_no_outcome(before, task):
    assert outcomes(START | before, task) == []


def test_a_task_that_could_be_done_in_two_ways_is_in_no_chain():
    state = START | {"pink_block": "grasped", "grasped": 1}
    assert len(outcomes(state, "stack_block")) == 2
    assert not is_chain(state, ("stack_block",))


def test_two_tasks_of_one_kind_are_in_no_chain():
    assert is_chain(START, ("turn_on_led", "close_drawer"))
    assert not is_chain(START, ("turn_on_led", "turn_on_lightbulb"))
