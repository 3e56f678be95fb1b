"""Who is who: identities of people over time, through missed detections, short occlusions and crossings.

Every frame is one assignment (Hungarian algorithm) of the people in it to those who are known, as in SORT (Bewley et al. 2016). The cost of a pair
is a negative log-likelihood of motion (keypoints at constant velocity), size, pose (object keypoint similarity, as COCO) and
colour (masked crop, in horizontal bands, CIELAB), which told the people of vtest.avi apart better than BlazePose's feature map and embedding.
"""

from __future__ import annotations

import math
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

from hmr_ros.geometry import crop_matrix
from hmr_ros.palette import PEOPLE, person_colour, person_number
from hmr_ros.proxies import PersonProxies
from hmr_ros.proxies.similarity import area, keypoint_similarity
from hmr_ros.skeleton import TORSO_KEYPOINTS

_IS_TORSO = np.isin(np.arange(17), TORSO_KEYPOINTS)
_GIVEN: set[str] = set()  # by this process: an id never comes back


def new_id(others: Sequence[str] = ()) -> str:
    """Five random characters as in REP 155, unique in this process, and of another colour than ``others`` while there are colours.

    The first is a letter: YAML would read 12e34 as a number.
    """
    taken = {person_colour(person_number(other, 0)) for other in others}
    while True:
        name = secrets.choice(string.ascii_lowercase) + "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(4))
        if name not in _GIVEN and (len(taken) == len(PEOPLE) or person_colour(person_number(name, 0)) not in taken):
            _GIVEN.add(name)
            return name


@dataclass(frozen=True)
class TrackingConfig:
    """Lengths are shares of the person's size, the diagonal of the box. Tuned on scripted scenes and on vtest.avi, frames 0 to 300 included."""

    max_people: int = 0  # most people at a time, those who are known and the best scores first; 0: everybody
    min_score: float = 0.0  # of somebody new
    known_score: float = 0.7  # share of min_score that suffices for somebody who is known
    sure_score: float = 0.5  # somebody new is shown as soon as the scores of the frames that see them sum to this
    back_score: float = 0.7  # the same for who may be somebody lost: of who comes out from behind something, too little is seen at first
    remembered: float = 3.0  # seconds: so long a lost person is remembered, two of them hidden, one until the next complete pass has ended
    border_time: float = 0.3  # seconds: who is lost for longer and expected outside of the image has left
    place_sigma: float = 0.06  # of a predicted place, just seen
    speed_sigma: float = 0.5  # a second: by how much the place becomes less certain
    newcomer_sigma: float = 1.5  # a second: the same while the velocity is not known yet
    velocity_time: float = 0.3  # seconds over which velocity is averaged
    stopping_time: float = 1.0  # seconds: a lost person's velocity decays
    size_sigma: float = 0.25  # of the logarithm of the size
    pose_weight: float = 2.0  # of 1 - keypoint similarity
    pose_time: float = 0.3  # seconds: after so long a pose tells less
    colour_sigma: float = 20.0  # CIELAB units, 8 bits, over all bands: of one person a second apart [vtest]
    colour_most: float = 4.5  # the highest cost of another colour: light changes, and masks bleed
    colour_time: float = 3.0  # seconds over which a person's colour is averaged: longer than somebody in front bleeds into the mask
    new_cost: float = 9.0  # a pair that costs more are two people


@dataclass(eq=False)
class Identity:
    """Somebody whom the tracker knows."""

    id: str
    person: PersonProxies  # when last seen
    colour: np.ndarray | None
    stamp: float  # when last seen, seconds
    since: float  # when first seen
    velocity: np.ndarray  # (2,) px/s
    evidence: float  # sum of the scores
    shown: bool = False
    merged: tuple[Identity, Identity] | None = None  # lost on top of somebody else: who that is, and how they were then

    @property
    def size(self) -> float:
        """Diagonal of the box, px."""
        return _diagonal(self.person.box)


class Tracker:
    """People of one camera, frame by frame: ``tracker(people, stamp, image)`` → an identity for each.

    It is ``shown`` or not yet, and None for who is refused: by ``min_score``, or because ``max_people`` others are there.
    Stamps grow; after ``reset`` nobody is known. Not for several threads.
    """

    def __init__(self, config: TrackingConfig = TrackingConfig()):
        self.config = config
        self.known: list[Identity] = []
        self._last = -np.inf  # stamp of the last frame
        self.lost = 0  # people who were shown and are forgotten now, since the start

    def reset(self) -> None:
        self.lost += sum(one.shown for one in self.known)
        self.known = []

    def __call__(self, people: Sequence[PersonProxies], stamp: float, image: np.ndarray | None = None) -> list[Identity | None]:
        """``stamp`` in seconds. ``image``: uint8 (H, W, 3) BGR, for the colour; without it motion and pose decide alone."""
        config, start = self.config, not self.known
        if any(stamp <= one.stamp for one in self.known):
            raise ValueError(f"stamp {stamp} does not lie after the last one, expected stamps that grow: call reset() where time jumps")
        self._forget(stamp, image)
        colours = [None if image is None else banded_colour(image, person) for person in people]
        whose = self._assign(people, colours, stamp, self.known)
        before = {one: replace(one) for one in self.known}
        for j in np.argsort([-person.score for person in people]):
            person, one = people[j], whose.get(int(j))
            if one is None or self._doubtful(one, person, stamp):
                if person.score < config.min_score:
                    whose.pop(int(j), None)
                    continue
                one = whose[int(j)] = Identity(new_id([one.id for one in self.known]), person, colours[j], stamp, stamp, np.zeros(2), person.score)
                one.shown = start
                self.known.append(one)
            elif person.score < config.known_score * config.min_score:
                del whose[int(j)]
            else:
                self._update(one, person, colours[j], stamp)
        self._note_merged(before, stamp)
        self._last = stamp
        self._recognise(stamp)
        current = {id(one.person): one for one in self.known}
        return self._admitted(people, {j: current[id(people[j])] for j in whose})

    def _doubtful(self, one: Identity, person: PersonProxies, stamp: float) -> bool:
        """``one`` was lost, and too little is seen yet to say that it is them who come back, or somebody else may have taken their place."""
        unsure = stamp - one.stamp > self.config.pose_time and person.score < self.config.back_score
        return one.shown and one.stamp < self._last and (unsure or one.merged is not None)

    def _note_merged(self, before: dict[Identity, Identity], stamp: float) -> None:
        """Who is lost where somebody else is: from now on the detection of the one may be of the other. ``before``: everybody in the last frame."""
        for one in [one for one in before if one.shown and one.stamp == self._last]:
            costs = {other: self.cost(one, other.person, other.colour, stamp) for other in before if other.shown and other.stamp == stamp}
            other = min(costs, key=costs.get, default=None)
            one.merged = (other, before[other]) if other is not None and costs[other] < self.config.new_cost else None

    def _recognise(self, stamp: float) -> None:
        """Newcomers of whom enough is seen by now are shown: as those who were lost, or as somebody new."""
        new = [one for one in self.known if not one.shown and one.stamp == stamp and one.evidence >= self.config.sure_score]
        lost = [one for one in self.known if one.shown and one.stamp < stamp]
        who = {new[j]: one for j, one in self._assign([one.person for one in new], [one.colour for one in new], stamp, lost).items()}
        for one in new:
            one.shown = one not in who
            if one in who and one.evidence >= self.config.back_score:
                self.known.remove(one)
                self._return(who[one], one, stamp)

    def _return(self, one: Identity, new: Identity, stamp: float) -> None:
        """``one`` is who was new; where ``one`` was lost on top of somebody, the two may have changed places meanwhile."""
        other, then = one.merged or (None, None)
        if other is not None and other.stamp == stamp:
            cost = {(a, b): self.cost(a, b.person, b.colour, stamp) for a in (one, then) for b in (new, other)}
            if cost[one, other] + cost[then, new] < cost[one, new] + cost[then, other]:
                one.person, one.stamp, one.velocity = other.person, stamp, other.velocity
                one, one.colour = other, then.colour
        one.person, one.stamp, one.velocity, one.evidence = new.person, stamp, new.velocity, one.evidence + new.evidence

    def _forget(self, stamp: float, image: np.ndarray | None) -> None:
        """Those lost for too long, those not shown yet after a quarter of that, and those who have left the image by now."""
        kept = [one for one in self.known if stamp - one.stamp <= self.config.remembered * (1.0 if one.shown else 0.25)]
        if image is not None:
            kept = [one for one in kept if not self._has_left(one, stamp, image)]
        self.lost += sum(one.shown for one in self.known if one not in kept)
        self.known = kept

    def _assign(self, people, colours, stamp: float, known: list[Identity]) -> dict[int, Identity]:
        if not people or not known:
            return {}
        costs = np.array([[self.cost(one, person, colour, stamp) for person, colour in zip(people, colours)] for one in known])
        possible = costs < self.config.new_cost
        rows, columns = linear_sum_assignment(np.where(possible, costs, 4 * self.config.new_cost))
        return {int(j): known[i] for i, j in zip(rows, columns) if possible[i, j]}

    def cost(self, one: Identity, person: PersonProxies, colour: np.ndarray | None, stamp: float) -> float:
        """Negative log-likelihood of ``person`` at ``stamp`` under what is expected of ``one``; 0 at best, for somebody just seen.

        The wider the place where somebody may be, the less likely is each point of it.
        """
        config, gone = self.config, stamp - one.stamp
        off, sigma = _displacement(one.person, person) - self._moved(one, gone), self._sigma(one, stamp)
        place = 0.5 * float(off @ off) / sigma**2 + 2 * math.log(sigma / (config.place_sigma * one.size))
        size = _diagonal(person.box) / one.size
        cost = place + min(0.5 * (math.log(size) / config.size_sigma) ** 2, config.colour_most)
        if gone < config.pose_time:
            moved = one.person.keypoints + np.array([*self._moved(one, gone), 0], np.float32)
            similarity = keypoint_similarity(moved, person.keypoints, area(one.person.box))
            cost += config.pose_weight * (1 - (0.5 if similarity is None else similarity))
        if colour is not None and one.colour is not None:
            off = colour - one.colour
            cost += min(0.5 * float(off @ off) / config.colour_sigma**2, config.colour_most)
        return cost

    def _has_left(self, one: Identity, stamp: float, image: np.ndarray) -> bool:
        """Not seen lately, and expected outside of the image."""
        centre = one.person.box.reshape(2, 2).mean(0) + self._moved(one, stamp - one.stamp)
        return stamp - one.stamp > self.config.border_time and bool(np.any(centre < 0) or np.any(centre >= image.shape[1::-1]))

    def _sigma(self, one: Identity, stamp: float) -> float:
        """Standard deviation of the predicted place, px."""
        spread = self.config.newcomer_sigma if one.stamp == one.since else self.config.speed_sigma
        return one.size * (self.config.place_sigma + spread * (stamp - one.stamp))

    def _moved(self, one: Identity, seconds: float) -> np.ndarray:
        time = self.config.stopping_time
        return one.velocity * (time * (1 - math.exp(-seconds / time)))

    def _update(self, one: Identity, person: PersonProxies, colour: np.ndarray | None, stamp: float) -> None:
        config, passed = self.config, stamp - one.stamp
        speed = _displacement(one.person, person) / passed
        gain = 1.0 if one.stamp == one.since else 1 - math.exp(-passed / config.velocity_time)
        one.velocity = one.velocity + gain * (speed - one.velocity)
        if one.colour is None:
            one.colour = colour
        elif colour is not None:
            one.colour = one.colour + (1 - math.exp(-passed / min(config.colour_time, stamp - one.since))) * (colour - one.colour)
        one.person, one.stamp, one.evidence = person, stamp, one.evidence + person.score

    def _admitted(self, people, whose: dict[int, Identity]) -> list[Identity | None]:
        """At most ``max_people``, those who are shown and known for longest first."""
        order = sorted(whose, key=lambda j: (not whose[j].shown, whose[j].since, -people[j].score))
        kept = set(order[: self.config.max_people] if self.config.max_people else order)
        return [whose[j] if j in kept else None for j in range(len(people))]


def _diagonal(box: np.ndarray) -> float:
    """Of a box (4,), px."""
    x0, y0, x1, y1 = box.tolist()
    return math.hypot(x1 - x0, y1 - y0)


def _displacement(before: PersonProxies, now: PersonProxies) -> np.ndarray:
    """(2,) px: of the torso, where two of its keypoints are seen both times, else of all that are, else of the box."""
    both = np.minimum(before.confidence, now.confidence)
    weights = np.where(_IS_TORSO, both, 0).astype(np.float64)
    if np.count_nonzero(weights) < 2:
        weights = both
    if weights.any():
        return weights @ (now.keypoints[:, :2] - before.keypoints[:, :2]).astype(np.float64) / weights.sum()
    return (now.box.reshape(2, 2).mean(0) - before.box.reshape(2, 2).mean(0)).astype(np.float64)


def banded_colour(image: np.ndarray, person: PersonProxies, bands: int = 4, side: int = 48) -> np.ndarray | None:
    """(3 bands,) mean CIELAB (8 bits) of the masked crop in horizontal bands of equal height, lightness at half weight.

    None without a mask, or where it shows hardly anything.
    """
    if person.mask is None:
        return None
    mask = cv2.resize(person.mask, (side, side), interpolation=cv2.INTER_AREA)
    rows = np.flatnonzero(mask.sum(1) > 1)
    if len(rows) < 2 * bands:
        return None
    edges = [rows[0] + band * (rows[-1] + 1 - rows[0]) // bands for band in range(bands + 1)]
    crop = cv2.warpAffine(image, crop_matrix(person.crop, side), (side, side), flags=cv2.INTER_LINEAR)
    colours = np.concatenate([cv2.cvtColor(crop, cv2.COLOR_BGR2LAB) * mask[..., None], mask[..., None]], -1)
    sums = np.add.reduceat(colours[: edges[-1]].sum(1), edges[:-1])
    return (sums[:, :3] / np.maximum(sums[:, 3:], 1e-3) * [0.5, 1, 1]).reshape(-1)
