"""The chains of CALVIN's long-horizon benchmark (Mees et al. 2022).

A chain is a state of the table to start from and five tasks that can be done one after the other.
They are drawn at random with fixed seeds, so that everybody is measured on the same ones. The table
is described by what its lights, slider, drawer and blocks are like; a task by what must hold before
it and what it changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations, product

import numpy as np

CHAIN_LENGTH = 5
BLOCKS = ("red_block", "blue_block", "pink_block")
IN_SLIDER = ("slider_right", "slider_left")

State = dict[str, "str | int"]


@dataclass(frozen=True)
class Chain:
    """start: the table's state, its keys in CALVIN's order. tasks: five names."""

    start: State
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Way:
    """One way to do a task: values that each part of the table may have before, and has after."""

    before: dict[str, tuple[str | int, ...]]
    after: State


@dataclass(frozen=True)
class Task:
    """kind: no chain has two tasks of one kind."""

    kind: str
    ways: tuple[Way, ...]


def chains(count: int) -> list[Chain]:
    """The benchmark's list of `count` chains. Other counts make other lists, not shorter ones."""
    starts = start_states()
    shares = [len(part) for part in np.array_split(np.arange(count), len(starts))]
    drawn = [
        Chain(start, names)
        for seed, (start, share) in enumerate(zip(starts, shares))
        for names in _draw(start, share, np.random.RandomState(seed))
    ]
    np.random.RandomState(0).shuffle(drawn)
    return drawn


def start_states() -> list[State]:
    """Tables to start from: one or two blocks lie on the table, others in the slider's halves."""
    states = [
        dict(zip(("led", "lightbulb", "slider", "drawer", *BLOCKS, "grasped"), (*values, 0)))
        for values in product(
            (0, 1), (0, 1), ("right", "left"), ("closed", "open"),
            *[("table", *IN_SLIDER)] * len(BLOCKS),
        )
    ]
    return [state for state in states if _is_start([state[block] for block in BLOCKS])]


def outcomes(state: State, task: str) -> list[State]:
    """The states that a task can lead to, one per way that is open; none if it cannot be done."""
    return [
        state | way.after
        for way in tasks()[task].ways
        if all(state[part] in allowed for part, allowed in way.before.items())
    ]


def is_chain(state: State, names: tuple[str, ...]) -> bool:
    """Whether the tasks can be done in that order, each in just one way, no two of one kind."""
    for name in names:
        following = outcomes(state, name)
        if len(following) != 1:
            return False
        state = following[0]
    return len({tasks()[name].kind for name in names}) == len(names)


def _is_start(places: list[str]) -> bool:
    return places.count("table") in (1, 2) and all(places.count(half) < 2 for half in IN_SLIDER)


def _draw(start: State, count: int, random: np.random.RandomState) -> list[tuple[str, ...]]:
    """Five different tasks at random, again and again, until `count` of them were chains."""
    names = list(tasks())
    # Thousands of draws make one chain, and most fail at once.
    can_begin = [len(outcomes(start, name)) == 1 for name in names]
    found: list[tuple[str, ...]] = []
    while len(found) < count:
        order = random.permutation(len(names))[:CHAIN_LENGTH].tolist()
        if can_begin[order[0]]:
            drawn = tuple(names[index] for index in order)
            if is_chain(start, drawn):
                found.append(drawn)
    return found


@cache
def tasks() -> dict[str, Task]:
    """All tasks. Their order is part of the benchmark: it decides which ones a seed draws."""
    return {
        **{
            f"{verb}_{block}_{side}": _empty_handed("turn or push", _way({block: "table"}))
            for verb in ("rotate", "push") for block in BLOCKS for side in ("right", "left")
        },
        "move_slider_left": _empty_handed("slider", _change("slider", "right", "left")),
        "move_slider_right": _empty_handed("slider", _change("slider", "left", "right")),
        "open_drawer": _empty_handed("drawer", _change("drawer", "closed", "open")),
        "close_drawer": _empty_handed("drawer", _change("drawer", "open", "closed")),
        **{name: task for block in BLOCKS for name, task in _lifts(block).items()},
        "place_in_slider": _holding("place", *(
            _way({"slider": side}, {block: f"slider_{side}"}, held=block)
            for block in BLOCKS for side in ("right", "left")
        )),
        "place_in_drawer": _holding("place", *(
            _way({"drawer": "open"}, {block: "drawer"}, held=block) for block in BLOCKS
        )),
        "stack_block": _holding("stack", *(
            _way({below: "table"}, {top: "stacked_top", below: "stacked_bottom"}, held=top)
            for top, below in permutations(BLOCKS, 2)
        )),
        "unstack_block": _empty_handed("unstack", *(
            _way({top: "stacked_top", below: "stacked_bottom"}, {top: "table", below: "table"})
            for top, below in permutations(BLOCKS, 2)
        )),
        **{
            f"turn_{word}_{light}": _empty_handed("light", _change(light, 1 - value, value))
            for light in ("lightbulb", "led") for word, value in (("on", 1), ("off", 0))
        },
        "push_into_drawer": _empty_handed("push into drawer", *(
            # The other blocks must be out of the way.
            _way({block: "table", "drawer": "open",
                  **{other: IN_SLIDER for other in BLOCKS if other != block}}, {block: "drawer"})
            for block in BLOCKS
        )),
    }  # fmt: skip


def _lifts(block: str) -> dict[str, Task]:
    lifted = {block: "grasped", "grasped": 1}
    return {
        f"lift_{block}_table": _empty_handed("lift from table", _way({block: "table"}, lifted)),
        # The sliding door covers one half of the slider; it stands on the other side.
        f"lift_{block}_slider": _empty_handed(
            "lift from slider",
            _way({block: "slider_left", "slider": "right"}, lifted),
            _way({block: "slider_right", "slider": "left"}, lifted),
        ),
        f"lift_{block}_drawer": _empty_handed(
            "lift from drawer", _way({block: "drawer", "drawer": "open"}, lifted)
        ),
    }


def _way(before: dict, after: State | None = None, held: str | None = None) -> Way:
    if held is not None:
        before, after = {**before, held: "grasped"}, {**(after or {}), "grasped": 0}
    allowed = {k: v if isinstance(v, tuple) else (v,) for k, v in before.items()}
    return Way(allowed, after or {})


def _change(part: str, before: str | int, after: str | int) -> Way:
    return _way({part: before}, {part: after})


def _empty_handed(kind: str, *ways: Way) -> Task:
    return Task(kind, tuple(Way(way.before | {"grasped": (0,)}, way.after) for way in ways))


def _holding(kind: str, *ways: Way) -> Task:
    return Task(kind, tuple(Way(way.before | {"grasped": (1,)}, way.after) for way in ways))
