"""Level and message of /diagnostics by the thresholds, each of which is a parameter; rates and shares of the last seconds."""

import pytest

pytest.importorskip("rclpy")
from hmr_ros.ros import diagnostics  # noqa: E402
from hmr_ros.ros.diagnostics import ERROR, OK, WARN, Statistics, Window, judge  # noqa: E402
from hmr_ros.ros.parameters import LiveParameters  # noqa: E402

LIMITS = LiveParameters(warn_silence=2.0, error_silence=5.0, warn_drop_share=0.3, error_drop_share=0.8, warn_latency=0.2, error_latency=1.0)
OFF = LiveParameters(error_silence=0.0, warn_drop_share=0.0, error_drop_share=0.0, warn_latency=0.0, error_latency=0.0)


def judged(limits=LIMITS, silence=0.0, drops=0.0, latency=0.01, unusable=0, remarks=()):
    statistics = Statistics()
    for _ in range(100):
        statistics.took("latency", latency)
    return judge(statistics, Window(30.0, 30.0, drops, 0.0, unusable), limits, silence, list(remarks))


def test_all_well():
    assert judged() == (OK, "running")
    assert judge(Statistics(), Window(0.0, 0.0, 0.0, 0.0, 0), LIMITS, 0.0, []) == (OK, "running")  # nothing measured yet


@pytest.mark.parametrize("what, below, warns, errs, words", [
    ("silence", 2.0, 2.1, 5.1, "no image for"), ("drops", 0.3, 0.31, 0.81, "% of the frames are dropped"), ("latency", 0.2, 0.21, 1.01, "latency p95 is"),
])  # fmt: skip
def test_each_threshold_is_that_of_its_parameter(what, below, warns, errs, words):
    assert judged(**{what: below})[0] == OK
    for value, level in ((warns, WARN), (errs, ERROR)):
        found, text = judged(**{what: value})
        assert found == level and words in text
    assert judged(OFF, **{what: errs})[0] == (WARN if what == "silence" else OK)  # 0: never; silence always warns


def test_the_worst_stands_first_and_nothing_is_left_out():
    level, text = judged(silence=6.0, drops=0.5, unusable=2, remarks=["nobody knows where odom is"])
    assert level == ERROR and text.startswith("no image for 6 s; ")
    assert all(words in text for words in ("50 % of the frames are dropped", "some images could not be used", "nobody knows where odom is"))
    assert judged(remarks=["x"]) == (WARN, "x")


def test_rates_and_shares_are_those_of_the_last_reports(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(diagnostics.time, "monotonic", lambda: now[0])
    statistics, received, dropped = Statistics(), 0, 0
    for second in range(1, 31):  # 30 in, 10 dropped; half of the others with depth, in the last ten seconds
        now[0] += 1
        received, dropped = received + 30, dropped + 10
        statistics.published += 20
        statistics.with_depth += 10 if second > 20 else 0
        statistics.malformed += second == 30
        window = statistics.window(received, dropped)
    assert tuple(window) == pytest.approx((30.0, 20.0, 1 / 3, 0.5, 1))
    now[0] += 1
    assert statistics.window(received, dropped).unusable == 0
