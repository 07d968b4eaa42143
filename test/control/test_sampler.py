from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from deer_ros.control.sampler import (
    CAMERAS,
    CLOCK_JUMPED,
    DRIFT,
    GAP,
    GRIPPER,
    JITTER,
    KEPT_PICTURES,
    STATIC,
    Offer,
    Sampler,
)

MS = 1_000_000


def sampler(period_ms=50, skew_ms=20, gap_ms=500) -> Sampler:
    return Sampler(period_ms / 1e3, skew_ms / 1e3, gap_ms / 1e3)


def run(subject: Sampler, offers) -> list:
    """offers: (camera, stamp in ms). All pairs that come out, taken at once."""
    pairs = []
    for camera, stamp_ms in offers:
        subject.offer(camera, round(stamp_ms * MS), (camera, stamp_ms))
        pair = subject.take()
        if pair is not None:
            pairs.append(pair)
    return pairs


def both(stamps_ms):
    return [(camera, stamp) for stamp in stamps_ms for camera in CAMERAS]


def stamps(pairs) -> list[tuple[float, float]]:
    return [(p.static.stamp_ns / MS, p.gripper.stamp_ns / MS) for p in pairs]


def test_a_step_waits_for_both_cameras():
    subject = sampler()
    subject.offer(STATIC, 0, "left")
    assert subject.take() is None
    subject.offer(GRIPPER, 3 * MS, "right")
    pair = subject.take()
    assert (pair.static.payload, pair.gripper.payload) == ("left", "right")
    assert pair.stamp_ns == 3 * MS and pair.skew_s == 0.003
    assert subject.take() is None


def test_the_newest_pictures_win_after_a_long_step():
    subject = sampler()
    for stamp in range(0, 500, 33):
        for camera in CAMERAS:
            subject.offer(camera, stamp * MS, None)
    assert stamps([subject.take()]) == [(495, 495)]
    assert subject.take() is None
    assert subject.refused == 0


def test_partners_find_each_other_when_one_camera_is_a_picture_ahead():
    subject = sampler(skew_ms=50)
    run(subject, both([100]))
    for camera, stamp in [(STATIC, 150), (GRIPPER, 150), (STATIC, 200)]:
        subject.offer(camera, stamp * MS, None)
    assert stamps([subject.take()]) == [(150, 150)]
    subject.offer(GRIPPER, 200 * MS, None)
    assert stamps([subject.take()]) == [(200, 200)]


def test_a_camera_whose_pictures_arrive_late_still_finds_partners():
    subject = sampler(skew_ms=5)
    late = [(STATIC, 100), (STATIC, 150), (STATIC, 200)]
    for stamp in range(250, 1000, 50):
        late += [(STATIC, stamp), (GRIPPER, stamp - 150)]
    pairs = run(subject, late)
    assert len(pairs) == 15
    assert all(pair.skew_s == 0 for pair in pairs)


def test_pictures_too_far_apart_make_no_step_and_are_counted():
    subject = sampler(skew_ms=10)
    offers = [(camera, stamp + 25 * (camera == GRIPPER))
              for stamp in range(0, 1000, 50) for camera in CAMERAS]
    assert run(subject, offers) == []
    assert subject.seen == 40 and subject.used == 0
    assert subject.refused == 40 - 2 * KEPT_PICTURES
    assert subject.skew_s() == 0.025


def test_a_20_hz_camera_that_trembles_runs_at_20_hz():
    tremble = [0, 4, -4, 3, -3, 4, -4, 0, 4, -4] * 10
    pairs = run(sampler(), both([50 * k + t for k, t in enumerate(tremble)]))
    assert len(pairs) == 100


def test_a_camera_a_little_faster_than_it_says_loses_no_frame():
    assert len(run(sampler(), both([49.75 * k for k in range(400)]))) == 400


def test_a_30_hz_camera_does_not_drive_20_hz_control_faster():
    pairs = run(sampler(), both([1000 / 30 * k for k in range(300)]))
    assert 140 <= len(pairs) <= 200


def test_a_24_hz_camera_does_not_drive_20_hz_control_faster():
    pairs = run(sampler(), both([1000 / 24 * k for k in range(240)]))
    assert len(pairs) <= 200 * (1 + 2 * DRIFT)


def test_the_same_stamp_again_is_ignored():
    subject = sampler()
    assert len(run(subject, both([0, 0, 50, 50, 50]))) == 2
    assert subject.offer(STATIC, 50 * MS, None) is Offer.REPEATED
    assert subject.seen == 11 and subject.used == 4 and subject.refused == 0


def test_a_lost_picture_that_is_sent_again_completes_the_pair():
    subject = sampler()
    assert len(run(subject, [(STATIC, 0), (STATIC, 0), (GRIPPER, 0)])) == 1


def test_a_picture_older_than_the_newest_is_refused():
    subject = sampler()
    subject.offer(STATIC, 100 * MS, None)
    assert subject.offer(STATIC, 60 * MS, None) is Offer.LATE
    assert subject.refused == 1


def test_a_gap_in_what_was_seen_starts_an_episode():
    pairs = run(sampler(), both([0, 50, 100, 1100, 1150]))
    assert [pair.new_episode for pair in pairs] == [None, None, None, GAP, None]


def test_a_gap_of_one_camera_starts_an_episode():
    offers = both([0, 50]) + [(STATIC, t) for t in range(100, 800, 50)] + both([800, 850])
    assert [pair.new_episode for pair in run(sampler(), offers)] == [None, None, GAP, None]


def test_a_gap_is_no_news_to_a_caller_that_starts_an_episode_anyway():
    subject = sampler()
    run(subject, both([0, 50]))
    subject.offer(STATIC, 1000 * MS, None)
    subject.starts_episode()
    subject.offer(GRIPPER, 1000 * MS, None)
    assert subject.take().new_episode is GAP, "the other camera had a gap of its own"
    subject.offer(STATIC, 2000 * MS, None)
    subject.offer(GRIPPER, 2000 * MS, None)
    subject.starts_episode()
    assert subject.take().new_episode is None


def test_a_slow_policy_sees_no_gap_where_the_cameras_had_none():
    subject = sampler()
    taken = []
    for stamp in range(0, 5000, 50):
        for camera in CAMERAS:
            subject.offer(camera, stamp * MS, None)
        if stamp % 1000 == 0:
            taken.append(subject.take())
    assert [pair.new_episode for pair in taken] == [None] * 5


def test_time_that_falls_back_starts_afresh():
    subject = sampler()
    run(subject, both([10_000, 10_050]))
    assert subject.offer(STATIC, 1000 * MS, None) is Offer.CLOCK_JUMPED
    pairs = run(subject, [(GRIPPER, 1000), *both([1050])])
    assert stamps(pairs) == [(1000, 1000), (1050, 1050)]
    assert [pair.new_episode for pair in pairs] == [CLOCK_JUMPED, None]


def test_one_wild_stamp_does_not_stop_a_camera_for_good():
    offers = [*both([0, 50]), (STATIC, 3_600_000), *both([150, 200, 250])]
    assert stamps(run(sampler(), offers))[-1] == (250, 250)


def test_unreadable_pictures_are_counted():
    subject = sampler()
    run(subject, both([0]))
    subject.count_unreadable()
    subject.give_back(unreadable=1)
    assert (subject.seen, subject.used, subject.refused) == (3, 0, 2)


streams = st.lists(
    st.tuples(st.sampled_from(CAMERAS), st.integers(-40, 400), st.booleans()), max_size=200)


@settings(max_examples=300, deadline=None)
@given(streams, st.integers(1, 200), st.integers(0, 100), st.integers(401, 1000))
def test_whatever_comes_pairs_are_close_fresh_and_not_too_many(offers, period, skew, gap):
    """Stamps wander, mostly forward, by less than the gap: no clock jumps here."""
    subject = sampler(period, skew, gap)
    now, pairs = 100_000, []
    for camera, move, takes in offers:
        now += move
        subject.offer(camera, now * MS, None)
        if takes and (pair := subject.take()) is not None:
            pairs.append(pair)
    assert all(pair.skew_s * 1e3 <= skew + 1e-6 for pair in pairs)
    for name in CAMERAS:
        used = [getattr(pair, name).stamp_ns for pair in pairs]
        assert used == sorted(set(used))
    for i, first in enumerate(pairs):
        for n, last in enumerate(pairs[i + 1:], start=1):
            elapsed = (last.stamp_ns - first.stamp_ns) / (period * MS)
            assert elapsed >= n * (1 - DRIFT) - JITTER - 1e-6
    assert subject.seen == len(offers)
    assert subject.used == 2 * len(pairs)
    assert subject.used + subject.refused <= subject.seen


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(CAMERAS), st.integers(0, 10**15)), max_size=60))
def test_no_sequence_of_stamps_raises_or_makes_a_pair_beyond_the_skew(offers):
    subject = sampler()
    for camera, stamp_ns in offers:
        subject.offer(camera, stamp_ns, None)
        pair = subject.take()
        assert pair is None or pair.skew_s <= 0.02
