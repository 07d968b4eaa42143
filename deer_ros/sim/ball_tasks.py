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

_COLOURS = {"red": "red", "green": "green", "blue": "blue"}
_PLACES = {"left": "leftmost", "middle": "middle", "right": "rightmost"}
_OWNERS = ("mine", "yours", "his", "hers", "ours")


def _owned(
    balls: dict[str, str] = _COLOURS, exchanges: int = 0, relation: str = "",
    owner_first: bool = False,
) -> tuple[Request, ...]:
    """Requests for every way to own the balls, in every order.

    balls: words for them, and which ball is meant by each. exchanges: how often two of the owners
    swap what is theirs before a ball is to be touched. relation: not the owned ball itself is
    meant, but one that stands so to it. owner_first: "mine is red", not "red is mine".
    """
    words, meant = (f"touch the ball {relation} ", f"{relation} ") if relation else ("touch ", "")
    requests = []
    for named, owners in product(permutations(balls), permutations(_OWNERS, 3)):
        pairs = zip(owners, named) if owner_first else zip(named, owners)
        said = " ".join(f"{one} is {other}" for one, other in pairs)
        for swaps in product(combinations(owners, 2), repeat=exchanges):
            ball_of = dict(zip(owners, map(balls.get, named)))
            for a, b in swaps:
                ball_of[a], ball_of[b] = ball_of[b], ball_of[a]
            swapped = "".join(f" swap {a} and {b}" for a, b in swaps)
            requests += [
                Request(f"{said}{swapped} {words}{owner}", f"{meant}{ball_of[owner]}")
                for owner in owners
            ]
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
    ("owned", _owned()),
    ("owner", _owned(owner_first=True)),
    ("placed", _owned(_PLACES)),
    ("owned-next", _owned(relation="next to")),
    ("swapped", _owned(exchanges=1)),
    ("swapped-next", _owned(exchanges=1, relation="next to")),
    ("swapped-twice", _owned(exchanges=2)),
)

BALL_TASKS = (
    *(
        Task(f"ball-{name}", THREE_BALLS, (Request(f"touch the {words}", choice),),
             other=f"ball-{other}")
        for name, choice, words, other in _SEEN
    ),
    *(Task(f"ball-{name}", THREE_BALLS, requests) for name, requests in _SAID),
)
