"""Tasks of the scene with three balls, where only the words say which of them to touch.

Some name a ball by what can be seen of it, some by its place among the others. In some the words
first say whose ball is whose, differently in every layout: there the words must be put together
before there is anything to look for.
"""

from __future__ import annotations

from itertools import combinations, permutations, product

from deer_ros.sim.task import Request, Task

THREE_BALLS = "three-balls"
"""The scene of `deer_ros.sim.balls`."""

_COLOURS = ("red", "green", "blue")
_TWO, _THREE = ("mine", "yours"), ("mine", "yours", "hers")


def _owned(owners: tuple[str, ...], swaps: bool, relation: str = "") -> tuple[Request, ...]:
    """Requests for every way to own the balls, in every order.

    swaps: two of the owners exchange what is theirs before the ball is to be touched. relation:
    not the owned ball itself is meant, but one that stands so to it.
    """
    words, meant = (f"touch the ball {relation} ", f"{relation} ") if relation else ("touch ", "")
    requests = []
    for colours, named in product(permutations(_COLOURS, len(owners)), permutations(owners)):
        ball_of = dict(zip(named, colours))
        said = " ".join(f"{colour} is {owner}" for owner, colour in ball_of.items())
        for pair, asked in product(combinations(owners, 2) if swaps else ((),), owners):
            exchanged = {**ball_of, **{a: ball_of[b] for a, b in zip(pair, reversed(pair))}}
            swap = f" swap {pair[0]} and {pair[1]}" if pair else ""
            requests.append(
                Request(f"{said}{swap} {words}{asked}", f"{meant}{exchanged[asked]}")
            )
    return tuple(requests)


_SEEN = (
    ("red", "red", "red ball", "green"),
    ("green", "green", "green ball", "blue"),
    ("blue", "blue", "blue ball", "red"),
    ("left", "leftmost", "ball on the left", "middle"),
    ("middle", "middle", "ball in the middle", "right"),
    ("right", "rightmost", "ball on the right", "left"),
    ("next", "next to red", "ball next to the red one", "red"),
    ("next-green", "next to green", "ball next to the green one", "green"),
    ("next-blue", "next to blue", "ball next to the blue one", "blue"),
    ("next-left", "next to leftmost", "ball next to the one on the left", "left"),
    ("next-right", "next to rightmost", "ball next to the one on the right", "right"),
)
_SAID = (
    ("mine", _owned(_TWO, swaps=False), "swapped"),
    ("swapped", _owned(_TWO, swaps=True), "mine"),
    ("next-mine", _owned(_TWO, False, "next to"), "mine"),
    ("hers", _owned(_THREE, swaps=False), ""),
    ("hers-swapped", _owned(_THREE, swaps=True), ""),
)

BALL_TASKS = (
    *(
        Task(f"ball-{name}", THREE_BALLS, (Request(f"touch the {words}", choice),),
             other=f"ball-{other}")
        for name, choice, words, other in _SEEN
    ),
    *(
        Task(f"ball-{name}", THREE_BALLS, requests, other=other and f"ball-{other}")
        for name, requests, other in _SAID
    ),
)
