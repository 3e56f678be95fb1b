"""Identities over time: crossings, occlusions, people who come and go; scripted people, no networks."""

import re

import cv2
import numpy as np
import pytest

from hmr_ros.proxies import PersonProxies
from hmr_ros.tracking import Tracker as IdentityTracker
from hmr_ros.tracking import TrackingConfig, new_id

SHAPE = np.array(
    [[0, 10], [3, 7], [-3, 7], [6, 9], [-6, 9], [20, 40], [-20, 40], [26, 70], [-26, 70], [28, 100], [-28, 100],
     [12, 100], [-12, 100], [13, 145], [-13, 145], [14, 190], [-14, 190]], np.float32
)  # fmt: skip
RED, BLUE = (40, 40, 200), (200, 60, 40)
NAMED = re.compile(r"[a-z][a-z0-9]{4}")


class Tracker(IdentityTracker):
    """Says ids alone, "" for who is not shown."""

    def __call__(self, *arguments):
        return [one.id if one is not None and one.shown else "" for one in super().__call__(*arguments)]


def person(x: float, rng=None, score: float = 0.8) -> PersonProxies:
    """A standing stick figure, 200 px high; with ``rng`` its keypoints are a little off."""
    keypoints = np.column_stack([SHAPE + [x, 100], np.full(17, 0.8)]).astype(np.float32)
    if rng is not None:
        keypoints[:, :2] += rng.normal(0, 3, (17, 2))
    mask = np.zeros((64, 64), np.float32)
    mask[6:58, 22:42] = 1
    return PersonProxies(score, np.array([x - 35, 100, x + 35, 300], np.float32), keypoints, np.array([x, 200, 240], np.float32), mask,
                         np.zeros((8, 8), np.float32), "none", confident=0.3)  # fmt: skip


def picture(people: dict[tuple, float]) -> np.ndarray:
    """Who stands later in ``people``, colour → x, stands in front."""
    image = np.full((480, 640, 3), 120, np.uint8)
    for colour, x in people.items():
        cv2.rectangle(image, (int(x) - 30, 105), (int(x) + 30, 295), colour, -1)
    return image


def crossing(seed: int, turn_back: bool, rate: float = 30.0):
    """Frames (stamp, people in random order, who they are, image): two meet and go on, one of them is hidden for half a second;
    or they turn back where both are hidden."""
    rng = np.random.default_rng(seed)
    speed, first = rng.uniform(80, 160), rng.uniform(60, 140)
    meet = 320 + rng.uniform(-40, 40)
    other = 2 * meet - first
    half = abs(meet - first) / speed
    for i in range(int(2 * half * rate)):
        t = i / rate
        way = speed * (min(t, 2 * half - t) if turn_back else t)
        xs = {RED: first + way, BLUE: other - way}
        hidden = abs(t - half) < 0.25
        seen = [RED, BLUE] if not hidden else [] if turn_back else [BLUE]
        rng.shuffle(seen)
        seen = [tuple(colour) for colour in seen]
        yield 1 + t, [person(xs[c], rng, rng.uniform(0.3, 0.9)) for c in seen], seen, picture(xs)


def identities(frames, colours: bool = True) -> dict[tuple, set[str]]:
    tracker, names = Tracker(), {RED: set(), BLUE: set()}
    for stamp, people, who, image in frames:
        for colour, name in zip(who, tracker(people, stamp, image if colours else None)):
            names[colour].add(name)
    return names


@pytest.mark.parametrize("colours", [True, False])
def test_two_who_cross_keep_their_ids_through_half_a_second_of_occlusion(colours):
    for seed in range(20):
        names = identities(crossing(seed, turn_back=False), colours)
        assert len(names[RED] - {""}) == len(names[BLUE] - {""}) == 1 and names[RED] != names[BLUE], seed


def test_two_who_meet_and_turn_back_are_told_apart_by_their_colours():
    """Motion alone takes them for two who passed each other."""
    mistaken = 0
    for seed in range(20):
        names = identities(crossing(seed, turn_back=True))
        assert len(names[RED] - {""}) == len(names[BLUE] - {""}) == 1 and names[RED] != names[BLUE], seed
        mistaken += len(identities(crossing(seed, turn_back=True), colours=False)[RED] - {""}) > 1
    assert mistaken > 10


def test_who_is_lost_is_remembered_for_three_seconds():
    for gone, same in ((2.8, True), (3.3, False)):
        tracker = Tracker()
        before = [tracker([person(200), person(400)], 1 + i / 10) for i in range(5)][-1]
        for i in range(1, int(10 * gone)):
            assert tracker([person(200)], 1.4 + i / 10) == before[:1]
        tracker([person(404), person(200)], 1.4 + gone)
        after = tracker([person(404), person(200)], 1.5 + gone)
        assert after[1] == before[0] and (after[0] == before[1]) == same
        assert tracker.lost == (0 if same else 1)


def test_who_comes_back_little_by_little_is_recognised_by_what_is_seen_in_the_end():
    """At first little of the person is seen, in the colour of what hides the rest."""
    tracker = Tracker()
    red, blue = [tracker([person(250), person(390)], 1 + i / 10, picture({RED: 250, BLUE: 390})) for i in range(5)][-1]
    tracker([], 1.5, picture({}))
    names = [tracker([person(320, score=0.3)], 2.0 + i / 10, picture({BLUE if i == 0 else RED: 320})) for i in range(5)]
    assert names[:3] == [[""]] * 3 and names[4] == [red]


def test_two_who_were_one_for_a_while_are_told_apart_by_how_they_were_before():
    """Two pass each other; the only detection stays with the one at first and goes with the other in the end."""
    tracker = Tracker()
    for i in range(11):
        red, blue = tracker([person(200 + 10 * i), person(420 - 10 * i)], 1 + i / 10)
    for i in range(11, 16):
        assert tracker([person(min(200 + 10 * i, 420 - 10 * i + 10))], 1 + i / 10) == [red]
    tracker([person(260), person(360)], 2.6)
    assert tracker([person(250), person(370)], 2.7) == [blue, red]


def test_an_id_is_five_characters_and_never_comes_back():
    names = [new_id() for _ in range(2000)]
    assert len(set(names)) == 2000 and all(NAMED.fullmatch(name) for name in names)
    tracker = Tracker()
    first = tracker([person(200)], 1.0)
    tracker.reset()
    assert tracker([person(200)], 1.1) != first and tracker.lost == 1


def test_a_doubtful_newcomer_is_shown_when_seen_again_and_again_and_a_sure_one_at_once():
    tracker = Tracker()
    assert all(tracker([person(100, score=0.2)], 1.0))  # the first frame shows everybody
    doubtful, sure = tracker([person(100), person(300, score=0.2), person(500, score=0.7)], 1.1)[1:]
    assert doubtful == "" and sure
    assert tracker([person(100), person(300, score=0.2), person(500)], 1.2)[1] == ""
    assert all(tracker([person(100), person(300, score=0.2), person(500)], 1.3))


def test_min_score_counts_for_newcomers_more_than_for_those_who_are_known():
    tracker = Tracker(TrackingConfig(min_score=0.5))
    name = tracker([person(100, score=0.55), person(300, score=0.45)], 1.0)
    assert name[0] and name[1] == ""
    assert tracker([person(100, score=0.4)], 1.1) == name[:1]
    assert tracker([person(100, score=0.3)], 1.2) == [""]


def test_of_too_many_those_are_shown_who_were_there_before():
    tracker = Tracker(TrackingConfig(max_people=2))
    names = tracker([person(100, score=0.5), person(300, score=0.6)], 1.0)
    assert tracker([person(500, score=0.9), person(100, score=0.3), person(300, score=0.3)], 1.1) == ["", *names]


def test_a_jump_across_the_picture_is_somebody_else():
    tracker = Tracker()
    before = [tracker([person(100)], 1 + i / 30) for i in range(10)][-1]
    assert tracker([person(500)], 1 + 10 / 30) != before


def test_a_stamp_that_does_not_grow_is_refused_in_words():
    tracker = Tracker()
    tracker([person(100)], 2.0)
    with pytest.raises(ValueError, match="stamp 1.9 does not lie after the last one"):
        tracker([person(100)], 1.9)
