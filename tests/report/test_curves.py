import numpy as np

from sgpo_jax.report import Curve, compare


def make(flops, success):
    flops, success = np.asarray(flops, float), np.asarray(success, float)
    return Curve(
        steps=np.arange(len(flops)),
        flops=flops,
        repeated=3 * flops,
        success=success,
        low=success - 0.1,
        high=success + 0.1,
    )


def test_a_curve_twice_as_fast_costs_half():
    success = np.array([0.2, 0.3, 0.4, 0.5, 0.5, 0.5])
    slow, fast = make(np.arange(6) * 10, success), make(np.arange(6) * 5, success)
    for point in compare(slow, fast):
        np.testing.assert_allclose(point.ratio, 2.0)
        np.testing.assert_allclose(point.ratio_repeated, 6.0)


def test_profiling_counts_before_the_first_step():
    success = np.array([0.2, 0.4, 0.6, 0.6])
    plain, profiled = make([0, 10, 20, 30], success), make([10, 20, 30, 40], success)
    points = compare(plain, profiled)
    np.testing.assert_allclose([p.other - p.baseline for p in points], 10.0)


def test_what_is_never_reached_is_said():
    points = compare(make([0, 1, 2], [0.2, 0.6, 0.6]), make([0, 1, 2], [0.2, 0.3, 0.3]))
    assert points[0].other == np.inf
    assert points[0].ratio == 0.0


def test_a_baseline_that_only_loses_is_no_measure():
    assert compare(make([0, 1], [0.2, 0.1]), make([0, 1], [0.2, 0.4])) == []


def test_evaluations_are_read_from_metrics():
    lines = [
        {
            "step": 0,
            "eval/success": 0.1,
            "eval/low": 0,
            "eval/high": 1,
            "total_flops": 0,
            "total_flops_repeated": 0,
        },
        {"step": 1, "reward": 0.5},
        {
            "step": 2,
            "eval/success": 0.3,
            "eval/low": 0,
            "eval/high": 1,
            "total_flops": 4,
            "total_flops_repeated": 9,
        },
    ]
    curve = Curve.from_metrics(lines)
    np.testing.assert_array_equal(curve.steps, [0, 2])
    np.testing.assert_array_equal(curve.success, [0.1, 0.3])
