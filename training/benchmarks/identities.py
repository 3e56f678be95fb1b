"""Scores of people's identities over time: IDF1 (Ristani et al. 2016), MOTA and identity switches (CLEAR MOT, Bernardin and Stiefelhagen 2008).

A frame is two dicts, who → box (4,) px: the truth, and what a tracker says. A box is found where the intersection over union is at least ``MIN_OVERLAP``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from hmr_ros.proxies.similarity import iou

MIN_OVERLAP = 0.5  # as in MOTChallenge

People = dict[Hashable, np.ndarray]


@dataclass(frozen=True)
class IdentityScores:
    idf1: float  # share of boxes whose identity is right, under the best one-to-one naming for the whole video
    mota: float  # 1 - (misses + false positives + switches) / boxes of the truth
    switches: int  # a person of the truth goes on under another name
    fragmentations: int  # a person of the truth is lost and found again
    misses: int
    false_positives: int
    boxes: int  # of the truth
    names: int  # that the tracker gave

    def as_dict(self) -> dict:
        return asdict(self)


def score(frames: Sequence[tuple[People, People]]) -> IdentityScores:
    """Of a whole video."""
    together: Counter[tuple] = Counter()
    boxes, found = Counter(), Counter()
    name_of: dict[Hashable, Hashable] = {}
    lost: set[Hashable] = set()
    switches = fragmentations = misses = false_positives = 0
    for truth, said in frames:
        boxes.update(list(truth))
        found.update(list(said))
        together.update((person, name) for person in truth for name in said if iou(truth[person], said[name]) >= MIN_OVERLAP)
        pairs = _matched(truth, said, name_of)
        for person in truth:
            if person in pairs:
                switches += person in name_of and name_of[person] != pairs[person]
                fragmentations += person in lost
                lost.discard(person)
                name_of[person] = pairs[person]
            elif person in name_of:
                lost.add(person)
        misses += len(truth) - len(pairs)
        false_positives += len(said) - len(pairs)
    total = sum(boxes.values())
    return IdentityScores(
        idf1=2 * _identified(together, list(boxes), list(found)) / max(total + sum(found.values()), 1),
        mota=1 - (misses + false_positives + switches) / max(total, 1),
        switches=switches, fragmentations=fragmentations, misses=misses, false_positives=false_positives, boxes=total, names=len(found),
    )  # fmt: skip


def perfectly_named(frames: Sequence[tuple[People, People]]) -> list[tuple[People, People]]:
    """The same boxes under the names of the truth: the bound of every tracker over these detections. Each false positive has a name of its own."""
    named = []
    for i, (truth, said) in enumerate(frames):
        person_of = {name: person for person, name in _matched(truth, said, {}).items()}
        named.append((truth, {("truth", person_of[name]) if name in person_of else (i, name): box for name, box in said.items()}))
    return named


def without_ignored(truth: People, said: People, ignored: People) -> People:
    """``said`` without those who lie on somebody ignored and on nobody of the truth."""
    pairs = _matched({**truth, **ignored}, said, {})
    dropped = {name for person, name in pairs.items() if person in ignored}
    return {name: box for name, box in said.items() if name not in dropped}


def _matched(truth: People, said: People, before: dict) -> dict:
    """Person → name: who was matched before stays so while the boxes overlap, the others by the most overlap."""
    pairs = {p: before[p] for p in truth if before.get(p) in said and iou(truth[p], said[before[p]]) >= MIN_OVERLAP}
    people, names = [p for p in truth if p not in pairs], [n for n in said if n not in pairs.values()]
    if people and names:
        overlap = np.array([[iou(truth[p], said[n]) for n in names] for p in people])
        rows, columns = linear_sum_assignment(np.where(overlap >= MIN_OVERLAP, -overlap, 1.0))
        pairs |= {people[i]: names[j] for i, j in zip(rows, columns) if overlap[i, j] >= MIN_OVERLAP}
    return pairs


def _identified(together: Counter, people: list, names: list) -> int:
    counts = np.array([[together[p, n] for n in names] for p in people]).reshape(len(people), len(names))
    rows, columns = linear_sum_assignment(-counts)
    return int(counts[rows, columns].sum())
