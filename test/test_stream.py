"""Streams: everybody is followed by himself, and passes of the detector are rare."""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_ros import HumanMeshEstimator
from hmr_ros.metric import StatureDirection
from hmr_ros.networks.regressor import BodyParameters
from hmr_ros.proxies import PersonProxies
from hmr_ros.smoothing import smooth_poses, steady_shapes
from hmr_ros.stream import Stream, StreamConfig, Track
from hmr_ros.training.data.rendered.scene import SceneConfig, SceneMaker

IMAGE = np.zeros((480, 640, 3), np.uint8)
DEMO = files("hmr_ros") / "assets" / "demo"


def person(x: float, score: float = 0.8) -> PersonProxies:
    """A standing stick figure, 200 px high, at a place of its own."""
    shape = np.array(
        [[0, 10], [3, 7], [-3, 7], [6, 9], [-6, 9], [20, 40], [-20, 40], [26, 70], [-26, 70], [28, 100], [-28, 100],
         [12, 100], [-12, 100], [13, 145], [-13, 145], [14, 190], [-14, 190]], np.float32
    )  # fmt: skip
    keypoints = np.column_stack([shape + [x, 100], np.full(17, 0.8)]).astype(np.float32)
    box = np.array([x - 35, 100, x + 35, 300], np.float32)
    depth = np.zeros((8, 8), np.float32)
    return PersonProxies(score, box, keypoints, np.array([x, 200, 240], np.float32), None, depth, "none", confident=0.3)


class Crowd:
    """An extractor of people who stand still: a pass finds whoever is there, everybody but ``slippery`` ones can be followed."""

    def __init__(self, *places: float, slippery: tuple[float, ...] = ()):
        self.places, self.slippery = list(places), slippery
        self.passes, self.followed = 0, []

    def __call__(self, image, depth=None, small_people=True):
        self.passes += 1
        return [person(x) for x in self.places]

    def follow(self, image, someone, depth=None):
        x = float(someone.crop[0])
        self.followed.append(x)
        return None if x in self.slippery or x not in self.places else replace(someone, score=0.5)


class Seen(tuple):
    """A body: place and stature that the estimator was told."""

    keypoints = measured_stature = None


def stream_of(crowd) -> Stream:
    """The stream alone: its estimator hands on whom it gets, with the statures."""
    estimate = lambda people, camera, depth, statures, smoothers: [Seen((float(p.crop[0]), float(s))) for p, s in zip(people, statures)]  # noqa: E731
    return Stream(SimpleNamespace(extractor=crowd, estimate=estimate))


def places(bodies) -> list[float]:
    return sorted(x for x, _ in bodies)


def test_one_person_who_cannot_be_followed_sends_nobody_else_back_to_detection():
    """As a truncated person did: a pass a frame for everybody, before."""
    crowd = Crowd(100, 300, 500, slippery=(300,))
    stream, frames, rate = stream_of(crowd), 60, 30.0
    for i in range(frames):
        assert {100, 500} <= set(places(stream(IMAGE, 1 + i / rate)))
    seconds = frames / rate
    assert 1 + seconds / Stream.DETECT_EVERY <= crowd.passes <= 1 + seconds / Stream.RETRY_AFTER  # each may find him again
    complete = int(seconds / Stream.DETECT_EVERY) + 1
    for x in (100, 500):
        assert crowd.followed.count(x) >= frames - complete


def test_whoever_is_followed_costs_no_pass_but_the_scheduled_ones():
    crowd = Crowd(100, 300)
    stream = stream_of(crowd)
    for i in range(49):  # 1.6 s at 30 frames a second: passes at 0, 0.8 and 1.6 s
        assert places(stream(IMAGE, 1 + i / 30)) == [100, 300]
    assert crowd.passes == 3


def test_a_lost_person_is_found_again_where_he_went():
    crowd = Crowd(100, 300)
    stream = stream_of(crowd)
    stream(IMAGE, 1.0)
    stream.tracks = [replace(track, stature=1.9) for track in stream.tracks]
    crowd.places = [100, 500]  # the second one jumps
    assert places(stream(IMAGE, 1.1)) == [100]
    assert places(stream(IMAGE, 1.2)) == [100]
    assert crowd.passes == 1  # not before RETRY_AFTER
    bodies = stream(IMAGE, 1.3)
    assert places(bodies) == [100, 500] and crowd.passes == 2
    statures = dict(bodies)
    assert statures[100] == 1.9 and np.isnan(statures[500])  # who is followed keeps what is known of him


def test_a_track_keeps_its_stature_through_passes_and_a_given_one_counts_first():
    crowd = Crowd(100, 300)
    stream = stream_of(crowd)
    stream(IMAGE, 1.0)
    stream.tracks[0] = replace(stream.tracks[0], stature=1.7)
    for i in range(1, 12):
        bodies = dict(stream(IMAGE, 1 + i / 10))
        assert bodies[100] == 1.7 and np.isnan(bodies[300])
    assert crowd.passes == 2
    assert dict(stream(IMAGE, 2.2, stature=1.5)) == {100: 1.5, 300: 1.5}
    assert dict(stream(IMAGE, 9.0))[100] != 1.7  # after a long gap they may be others


def test_nobody_is_there_twice():
    crowd = Crowd(100, 300, 500, slippery=(500,))
    stream = stream_of(crowd)
    for i in range(20):
        bodies = stream(IMAGE, 1 + i / 10)
        assert len(set(places(bodies))) == len(bodies)
    stream.tracks = [Track(person(100)), Track(person(104)), Track(person(300))]  # two who have become one
    crowd.places = [100, 104, 300]
    assert places(stream(IMAGE, 2.95)) == [100, 300]


def test_who_is_not_detected_in_a_complete_pass_is_dropped():
    crowd = Crowd(100, 300)
    stream = stream_of(crowd)
    stream(IMAGE, 1.0)
    stream.tracks.append(Track(person(500)))  # a false positive that can be followed for ever
    crowd.follow = lambda image, someone, depth=None: someone
    assert places(stream(IMAGE, 1.5)) == [100, 300, 500]
    assert places(stream(IMAGE, 1.8)) == [100, 300]


class Stepping(Crowd):
    """A pass takes three frames; whoever is confirmed is where he was in the first of them."""

    def __init__(self, *places: float, disagrees: tuple[float, ...] = ()):
        super().__init__(*places)
        self.steps, self.disagrees, self.confirmed, self.images = 0, disagrees, [], []

    def search(self, image, small_people=True):
        found = [person(x, score=0.7) for x in self.places]
        for _ in range(2):
            self.steps += 1
            yield
        self.steps += 1
        return found

    def confirm(self, image, detection, depth=None):
        self.confirmed.append(float(detection.crop[0]))
        self.images.append(int(image[0, 0, 0]))
        return detection

    def agrees(self, detection, someone):
        return float(detection.crop[0]) not in self.disagrees


def test_a_pass_is_spread_over_frames_and_everybody_is_followed_meanwhile():
    crowd = Stepping(100, 300)
    stream, shown = stream_of(crowd), []
    image = IMAGE.copy()
    image[0, 0] = 1
    for i in range(34):  # the search begins at 1.8 s, in frame 24
        crowd.places = [100, 300] if i < 24 else [100, 300, 500]
        steps = crowd.steps
        if i == 24:
            image[0, 0] = 24
        shown.append(places(stream(image, 1 + i / 30)))
        image[0, 0] = 99  # the caller's buffer is his own
        assert crowd.steps - steps <= 1
    assert shown == [[100, 300]] * 26 + [[100, 300, 500]] * 8
    assert crowd.confirmed == [500] and crowd.images == [24] and crowd.passes == 1
    assert 500 in crowd.followed[-24:] and crowd.followed.count(100) == 33
    assert {track.proxies.score for track in stream.tracks} == {0.5}


def test_a_spread_pass_drops_who_is_not_there_and_mends_who_is_followed_wrongly():
    crowd = Stepping(100, 300, disagrees=(300,))
    stream = stream_of(crowd)
    stream(IMAGE, 1.0)
    stream.tracks = [replace(track, stature=1.9) for track in stream.tracks]
    stream.tracks.append(Track(person(500)))
    crowd.follow = lambda image, someone, depth=None: someone
    for stamp in (1.5, 1.79, 1.82, 1.85):
        assert places(stream(IMAGE, stamp)) == [100, 300, 500]
    bodies = stream(IMAGE, 1.88)
    assert places(bodies) == [100, 300] and crowd.confirmed == [300]
    assert set(dict(bodies).values()) == {1.9}  # who is mended keeps what is known of him


def test_who_is_lost_during_a_spread_pass_is_found_by_it():
    crowd = Stepping(100, 300)
    stream = stream_of(crowd)
    stream(IMAGE, 1.0)
    stream(IMAGE, 1.5)
    stream(IMAGE, 1.79)
    stream(IMAGE, 1.82)  # the search begins
    crowd.places = [100]
    assert places(stream(IMAGE, 1.85)) == [100]
    crowd.places = [100, 300]
    assert places(stream(IMAGE, 1.88)) == [100, 300] and crowd.passes == 1


def test_at_low_rates_a_pass_takes_more_steps_a_frame():
    for gap, frames in ((0.034, 3), (0.1, 2), (0.3, 1)):
        crowd = Stepping(100)
        stream, stamp = stream_of(crowd), 1.0
        stream(IMAGE, stamp)
        crowd.places = [100, 300]
        shown = []
        while len(shown) < 60 and len(shown[-1:] and shown[-1]) < 2:
            stamp += gap
            shown.append(places(stream(IMAGE, stamp)))
        assert len(shown) == int(np.ceil((Stream.DETECT_EVERY - 1e-9) / gap)) + frames - 1


def test_in_real_time_a_slow_machine_makes_fewer_passes(monkeypatch):
    """A pass takes three steps of 0.2 s: every 0.8 s it would take three quarters of the time, and frames would come ever more slowly."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("hmr_ros.stream.time", SimpleNamespace(perf_counter=lambda: clock.now))

    class Slow(Stepping):
        def __call__(self, image, depth=None, small_people=True):
            clock.now += 0.6
            return super().__call__(image, depth, small_people)

        def search(self, image, small_people=True):
            passes = super().search(image, small_people)
            while True:
                clock.now += 0.2
                try:
                    next(passes)
                except StopIteration as end:
                    return end.value
                yield

        def follow(self, image, someone, depth=None):
            clock.now += 0.05
            return super().follow(image, someone, depth)

    def run(real_time, until):
        crowd = Slow(100, 300)
        clock.now, frames = 0.0, 0
        stream = Stream(stream_of(crowd)._estimator, StreamConfig(real_time=real_time))
        stream(IMAGE, 0.5)
        while clock.now < until:
            stream(IMAGE, 1 + clock.now)
            frames += 1
        return frames / until, crowd.steps / 3 / until

    (rate, passes), (slow_rate, many_passes) = run(True, 60), run(False, 60)
    assert rate > 1.5 * slow_rate
    assert many_passes > 1.5 * passes and passes > 0.9 / Stream.LONGEST_REST


def test_while_nobody_is_known_every_frame_is_searched():
    crowd = Crowd()
    stream = stream_of(crowd)
    for i in range(5):
        assert stream(IMAGE, 1 + i / 30) == []
    assert crowd.passes == 5
    crowd.places = [300]
    assert places(stream(IMAGE, 1.2)) == [300]
    crowd.places = []
    assert stream(IMAGE, 1.25) == [] and crowd.passes == 7


def test_statures_are_learned_from_the_frames_that_had_depth():
    """One wrong measurement among many does not count, too few are none, and everybody has his own."""
    crowd, measured = Crowd(100, 300), {100: iter([1.9, 1.88, 1.2, 1.92, 1.9]), 300: iter([1.6, 1.6])}
    stream = stream_of(crowd)

    def estimate(people, camera, depth, statures, smoothers):
        bodies = []
        for someone, stature in zip(people, statures):
            body = Seen((float(someone.crop[0]), float(stature)))
            body.keypoints = someone.keypoints
            body.measured_stature = None if depth is None else next(measured[body[0]], None)
            bodies.append(body)
        return bodies

    stream._estimator.estimate = estimate
    for i in range(5):
        assert all(np.isnan(stature) for _, stature in stream(IMAGE, 1 + i / 10, depth=IMAGE[..., 0].astype(np.float32)))
    statures = dict(stream(IMAGE, 1.5))
    assert statures[100] == pytest.approx(1.9) and np.isnan(statures[300])


# ---- with the real detectors ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def estimator():
    return HumanMeshEstimator.from_default()


@pytest.fixture(scope="module")
def frames():
    """Pedestrians, and before them, at the lower border, a truncated person."""
    portrait = cv2.resize(cv2.imread(str(DEMO / "astronaut.jpg")), (260, 260), interpolation=cv2.INTER_AREA)
    capture, frames = cv2.VideoCapture(str(DEMO / "pedestrians.mp4")), []
    for i in range(40, 56):
        capture.set(cv2.CAP_PROP_POS_FRAMES, i)
        frame = capture.read()[1]
        frame[-260:, 20 + i : 280 + i] = portrait
        frames.append(frame)
    return frames


def test_a_truncated_person_and_the_others_are_followed(estimator, frames, monkeypatch):
    calls = {"pass": 0, "window": 0}
    movenet = estimator.extractor.movenet

    class Counting:
        def __call__(self, *arguments):
            calls["pass"] += 1
            return movenet(*arguments)

        def search(self, *arguments, **options):
            calls["pass"] += 1
            return movenet.search(*arguments, **options)

        def in_window(self, *arguments):
            calls["window"] += 1
            return movenet.in_window(*arguments)

    monkeypatch.setattr(estimator.extractor, "movenet", Counting())
    stream, off = estimator.stream(), []
    for i, frame in enumerate(frames):
        bodies = stream(frame, 1 + 0.1 * i)
        passes, calls["pass"] = calls["pass"], 0
        reference = estimator(frame)
        calls["pass"] = passes
        assert abs(len(bodies) - len(reference)) <= 2 and len(bodies) >= 3
        large, expected = (max(some, key=lambda body: np.prod(body.box[2:] - body.box[:2])) for some in (bodies, reference))
        diagonal = np.hypot(*(expected.box[2:] - expected.box[:2]))
        off.append(np.linalg.norm(large.projected_keypoints[:13] - expected.projected_keypoints[:13], axis=1).mean() / diagonal)
    assert max(off) < 0.07  # her mesh, from the head to the hips, is as good as from a detection in every frame
    assert calls["pass"] <= 6  # at 0, 0.8 and 1.6 s, and when somebody left; once a frame before
    assert calls["window"] >= len(frames) - calls["pass"]


@pytest.mark.parametrize("rate", [10.0, 30.0])
def test_who_get_each_others_ids_back_do_not_slide_to_their_places(rate):
    """Two stand at 200 and 400 px, turned away from each other, and exchange ids in frame 12; in frame 20 the second one walks off at 2 m/s."""
    pixels_a_metre, facing = 100.0, {200: 0.0, 400: 2.0}
    crowd, walked, shown = Crowd(200, 400), [], []
    crowd.follow = lambda image, someone, depth=None: next(person(x) for x in crowd.places if abs(x - someone.crop[0]) < 30)

    def estimate(people, camera, depth, statures, smoothers):
        place = [float(one.crop[0]) for one in people]
        yaw = [facing[min(facing, key=lambda x: abs(x - where))] for where in place]
        rotations = np.stack([np.tile(Rotation.from_rotvec([0, turn, 0]).as_matrix(), (24, 1, 1)) for turn in yaw])
        weak = np.tile(np.float32([pixels_a_metre / 120, 0, 0]), (len(people), 1))
        parameters = BodyParameters(rotations, np.zeros((len(people), 10), np.float32), weak, np.ones((len(people), 12), np.float32))
        smooth = smooth_poses(smoothers, steady_shapes(smoothers, parameters), np.stack([one.crop for one in people]), None)
        for where, turn, body, pose in zip(place, yaw, smooth.weak_camera, smooth.rotations):
            off = Rotation.from_matrix(pose[5].T @ Rotation.from_rotvec([0, turn, 0]).as_matrix()).magnitude()
            shown.append((float(pixels_a_metre * body[1]), off))
            walked.append(where)
        return [Seen((where, 0.0)) for where in place]

    ids = ["aaaaa", "bbbbb"]
    stream = Stream(SimpleNamespace(extractor=crowd, estimate=estimate))
    stream._tracker = lambda people, stamp, image: [SimpleNamespace(id=ids[int(one.crop[0] > 300)], shown=True) for one in people]
    stream._tracker.known, stream._tracker.lost = [SimpleNamespace(id=id) for id in ids], 0
    stream._tracker.reset = lambda: None
    for i in range(30):
        if i == 12:
            ids.reverse()
        crowd.places = [200, 400 + (0 if i < 20 else 2 * pixels_a_metre * (i - 19) / rate)]
        stream(IMAGE, 1 + i / rate)
    offs, turns = np.abs(np.array(shown)).T
    standing = np.array(walked) <= 400
    assert len(shown) == 60 and offs[standing].max() < 0.5 and turns[standing].max() < 0.01
    assert 0 < offs[~standing].max() < 30 and turns.max() < 0.01  # who walks is smoothed, as ever


def test_the_stature_learned_with_depth_tells_the_distance_without(estimator):
    """A rendered person far from the mean stature, seen by a depth camera for a second, then by the colour camera alone."""
    maker = SceneMaker("val", None, SceneConfig(people=(1.0,), cut=0.0, occluded=0.0, beta0_sigma=1.0, distance=(2.0, 4.0)))
    direction, errors = StatureDirection(estimator.body_model), []
    for index in range(40):
        scene = maker.make(np.random.default_rng([9, index]))
        truth = scene.people[0]
        if abs(direction(truth.betas[None])[0] - direction.mean) < 0.12:
            continue
        pelvis, stream = truth.joints[0] + truth.translation, estimator.stream()
        before = stream(scene.image, 1.0, intrinsics=scene.intrinsics)
        for i in range(1, 7):
            stream(scene.image, 1 + i / 10, depth=scene.depth, intrinsics=scene.intrinsics)
        after = stream(scene.image, 1.75, intrinsics=scene.intrinsics)
        if len(before) == len(after) == 1:
            assert (before[0].translation_source, after[0].translation_source) == ("apparent size", "known stature")
            errors.append([np.linalg.norm(body[0].joints[0] + body[0].translation - pelvis) for body in (before, after)])
        if len(errors) == 6:
            break
    before, after = np.median(errors, axis=0)
    assert len(errors) == 6 and after < 0.5 * before and after < 0.12




def has_openblas() -> bool:
    with contextlib.redirect_stdout(io.StringIO()) as text:
        np.show_config()  # NumPy before 1.26 only prints it
    return "openblas" in text.getvalue().lower()


FOLLOWING = """
import os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "2"
import numpy
workers = set(os.listdir("/proc/self/task")) - {str(os.getpid())}
assert workers, "numpy's BLAS has started no threads, so that none can be watched"

import cv2
from hmr_ros import HumanMeshEstimator
from hmr_ros.bench.clips import EMBEDDED
from hmr_ros.stream import Stream

def ticks():
    stats = [open(f"/proc/self/task/{worker}/stat").read().rsplit(")", 1)[1].split() for worker in workers]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats)

stream, video, people = Stream(HumanMeshEstimator.from_default()), cv2.VideoCapture(str(EMBEDDED["pedestrians"])), 0
before = None
for i in range(12):
    image = video.read()[1]
    people = max(people, len(stream(image, i / 10)))
    before = ticks() if before is None else before
print(people, ticks() - before, bool({"torch._dynamo", "sympy"} & sys.modules.keys()))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.skipif(not has_openblas(), reason="numpy was built without OpenBLAS, whose threads are counted")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="on one CPU OpenBLAS starts no threads")
def test_no_thread_of_numpys_blas_takes_the_cpu_from_the_networks_and_torchs_compiler_is_not_imported():
    """BLAS threads spin for milliseconds after each product that wakes them: the next network then has one CPU less. The compiler takes a second."""
    result = subprocess.run([sys.executable, "-P", "-c", FOLLOWING], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    people, ticks, compiler = result.stdout.split()
    assert int(people) > 2
    assert int(ticks) == 0
    assert compiler == "False"
