"""The player's sense of time, and what it reads ahead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from deer_ros.nodes.player.ahead import OVERHEAD_BYTES, ReadAhead
from deer_ros.nodes.player.pace import CATCH_UP_NS, Pace

MS = 1_000_000
RATES = st.sampled_from([0.1, 0.5, 1.0, 3.0, 20.0])


@given(RATES, st.lists(st.integers(0, 200 * MS), min_size=1, max_size=50))
def test_messages_keep_their_distances_at_any_rate(rate, gaps):
    pace, bag_ns, steady_ns = Pace(rate), 10**18, 5 * MS
    pace.start(bag_ns, steady_ns)
    began_ns = steady_ns
    for gap in gaps:
        bag_ns += gap
        steady_ns += pace.wait_ns(bag_ns, steady_ns)
        assert pace.done(bag_ns, steady_ns) == 0
        assert abs(pace.bag_ns(steady_ns) - bag_ns) <= rate
    assert abs((steady_ns - began_ns) * rate - sum(gaps)) <= rate * len(gaps)


@given(st.lists(st.integers(0, 300 * MS), min_size=2, max_size=30))
def test_after_a_hiccup_nothing_comes_in_a_burst(hiccups):
    pace, now_ns, played = Pace(1.0), 0, []
    pace.start(0, 0)
    for number, hiccup in enumerate(hiccups):
        now_ns = max(now_ns, now_ns + pace.wait_ns(number * 50 * MS, now_ns)) + hiccup
        late_ns = pace.done(number * 50 * MS, now_ns)
        played.append((now_ns, late_ns))
    for (earlier_ns, _), (later_ns, late_ns) in zip(played, played[1:]):
        assert later_ns - earlier_ns >= 50 * MS - CATCH_UP_NS
        assert late_ns >= 0


@given(RATES, RATES, st.integers(0, 1000 * MS))
def test_pauses_and_other_rates_leave_no_jump(before, after, elapsed_ns):
    pace = Pace(before)
    pace.start(7 * MS, 0)
    bag_ns = pace.bag_ns(elapsed_ns)
    pace.pause(True, elapsed_ns)
    assert pace.bag_ns(elapsed_ns + 10**12) == bag_ns and pace.wait_ns(bag_ns, 10**12) is None
    pace.set_rate(after, elapsed_ns + 10**12)
    pace.pause(False, elapsed_ns + 10**12)
    assert pace.bag_ns(elapsed_ns + 10**12) == bag_ns
    assert pace.bag_ns(elapsed_ns + 10**12 + 100 * MS) - bag_ns == round(after * 100 * MS)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 1000))
def test_reading_ahead_is_bounded_and_loses_nothing(sizes, limit):
    messages = [("/a", number, bytes(size)) for number, size in enumerate(sizes)]
    ahead, found, held = ReadAhead(iter(messages), limit), [], 0
    while (message := ahead.first()) is not None:
        while ahead.read_one():
            pass
        held = max(held, sum(len(data) + OVERHEAD_BYTES for _, _, data in ahead._read))
        found.append(message)
        ahead.drop()
    assert found == messages and held <= limit + OVERHEAD_BYTES + 50
