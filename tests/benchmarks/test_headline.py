"""Analysis of the headline benchmark, on curves whose answers are known."""

import doctest
import json

import numpy as np
import pytest

from benchmarks.headline import __main__ as main
from benchmarks.headline import page, verdict
from benchmarks.headline.__main__ import merge, parse
from benchmarks.headline.analysis import (
    FREE_SUFFIX,
    LIVE_SUFFIX,
    SHARES,
    Bootstrap,
    Power,
    Runs,
    at_equal_compute,
    costs,
    power,
)
from benchmarks.headline.collect import against, compare, oracle
from benchmarks.headline.schedule import INITIAL, Pool, Run, plan
from sgpo_jax.sweep.process import environment

COMPUTE = np.linspace(0, 8, 41)


def learn(tau, difficulty, *, scale=1.0):
    """Success p_q (1 - exp(-c / tau_s)) of seeds [S] and questions [S, Q].

    Compute counts `scale`; the learning does not depend on it.
    """
    tau, difficulty = np.atleast_1d(tau), np.atleast_2d(difficulty)
    rise = 1 - np.exp(-COMPUTE / tau[:, None])
    return Runs(
        flops=np.tile(scale * COMPUTE, (len(tau), 1)),
        success=rise[:, :, None] * difficulty[:, None, :],
    )


def sample(rng, seeds, questions, *, spread):
    """A baseline and a method that needs half of the compute, in distribution."""
    difficulty = rng.beta(0.6, 0.6, size=(seeds, questions))
    taus = np.exp(spread * rng.standard_normal((2, seeds)))
    return {
        "base": learn(taus[0], difficulty),
        "half": learn(taus[1], difficulty, scale=0.5),
    }


def test_compute_to_a_share_of_the_gain_is_that_of_the_formula():
    """Within 3 %: linear between evaluations, averages of three of them."""
    runs = {"base": learn(1.0, [0.8]), "slow": learn(3.0, [0.8])}
    found = costs({name: x.curve() for name, x in runs.items()}, "base")
    shares = np.array(SHARES[:3])
    np.testing.assert_allclose(found["base"][:3], -np.log(1 - shares), rtol=0.03)
    reached = shares < 1 - np.exp(-8 / 3)
    expected = np.where(reached, -3 * np.log(1 - shares), np.inf)
    np.testing.assert_allclose(found["slow"][:3], expected, rtol=0.03)


def test_curves_are_averaged_before_anything_is_read_off_them():
    """Seeds of tau 1/4 and 4: the mean of their crossings is not that of the mean."""
    mixed = learn([0.25, 4.0], np.ones((2, 1)))
    mean = 1 - (np.exp(-COMPUTE / 0.25) + np.exp(-COMPUTE / 4)) / 2
    np.testing.assert_allclose(mixed.curve().success, mean)
    target = mean[0] + 0.75 * (mean.max() - mean[0])
    crossing = np.interp(target, mean, COMPUTE)
    found = costs({"base": mixed.curve()}, "base")["base"][1]
    assert found == pytest.approx(crossing, rel=0.02)
    alone = [costs({"base": mixed.seed(s).curve()}, "base")["base"][1] for s in (0, 1)]
    assert abs(np.mean(alone) - crossing) > 0.1 * crossing


def test_the_oracle_pays_for_no_rollout_of_a_group_without_signal():
    """By hand: two steps of 10 each, half and none dead; then one of 30, a third."""

    def line(generation, live):
        phase = {"flops": generation, "tokens": 0, "rollouts": 0, "seconds": 0.0}
        ledger = {"generation": phase | {"padded_flops": 0.0, "padded_tokens": 0}}
        return {"eval/success": 0.5, "ledger": ledger, "total_flops_live": live}

    lines = [
        line(0.0, 0.0),
        {"frac_no_signal": 0.5},
        {"frac_no_signal": 0.0} | line(20.0, 100.0),
        {"frac_no_signal": 1 / 3} | line(50.0, 200.0),
    ]
    np.testing.assert_allclose(oracle(lines), [0.0, 95.0, 185.0])


def test_the_same_runs_for_half_of_the_compute_save_exactly_two(rng):
    """Paired: noise that both have is no noise of the ratio."""
    base = sample(rng, 3, 40, spread=0.5)["base"]
    half = Runs(flops=base.flops / 2, success=base.success)
    booted = Bootstrap({"base": base, "half": half}, "base", count=50)
    for saving in booted.saving("base", "half"):
        assert (saving.value, saving.low, saving.high) == (2, 2, 2)
    # The base ends later, at more compute: it is compared where the other ends.
    assert booted.difference("half").value > 0


def coverage(*, seeds, fixed_seeds, datasets=25):
    """How often the interval of the saving at 75 % holds the truth, 2; its width."""
    rng = np.random.default_rng(0)
    held, widths = 0, []
    for _ in range(datasets):
        runs = sample(rng, seeds, 60, spread=0.3)
        booted = Bootstrap(runs, "base", count=60, fixed_seeds=fixed_seeds)
        saving = booted.saving("base", "half")[1]
        held += saving.low <= 2 <= saving.high
        widths.append(np.log(saving.high / saving.low))
    return held / datasets, np.median(widths)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """A percentile interval of few seeds is too narrow: 95 % are 85 to 95 % of 8.

    Questions alone, without seeds, hold it much less often: runs differ. Four times
    the seeds make it half as wide.
    """
    share, wide = coverage(seeds=8, fixed_seeds=False)
    assert share >= 0.8
    assert coverage(seeds=8, fixed_seeds=True)[0] < 0.5
    _, narrow = coverage(seeds=32, fixed_seeds=False, datasets=6)
    assert 0.35 < narrow / wide < 0.75


def test_what_is_never_reached_saves_nothing(rng):
    difficulty = rng.uniform(size=(2, 30))
    runs = {
        "base": learn([1, 1], difficulty),
        "stuck": learn([1, 1], difficulty / 4),
        "also": learn([2, 2], difficulty / 4),
    }
    booted = Bootstrap(runs, "base", count=20)
    for before, after, value in (
        ("base", "stuck", 0.0),
        ("stuck", "base", np.inf),
        ("stuck", "also", 1.0),
    ):
        assert {x.value for x in booted.saving(before, after)} == {value}


def test_accuracy_is_compared_where_the_shorter_run_ends():
    base, short = learn(1.0, [1.0]).curve(), learn(0.5, [1.0], scale=0.25).curve()
    expected = np.exp(-2 / 1.0) - np.exp(-8 / 0.5)  # at 2 of the base's 8
    assert at_equal_compute(base, short) == pytest.approx(expected, abs=5e-3)
    assert at_equal_compute(base, base) == 0


def test_power_finds_the_noise_that_was_put_in():
    """Two independent log-normal times of spread 0.2: 0.28 in the log of their ratio.

    Standard deviations of 39 degrees of freedom are off by 11 %.
    """
    rng = np.random.default_rng(1)
    found = power(sample(rng, 40, 400, spread=0.2), "base", count=40)
    assert found.degrees == 39
    assert found.total == pytest.approx(0.2 * 2**0.5, rel=0.25)
    assert found.questions < 0.05
    assert power(sample(rng, 1, 10, spread=0.2), "base") is None


def test_seeds_and_questions_that_resolve_a_factor():
    noise = Power(total=0.3, questions=0.18, count=1600, degrees=10)
    needed = noise.seeds(1.1)
    assert noise.half_width(needed) <= np.log(1.1) < noise.half_width(needed - 1)
    # A quarter of the questions has four times the variance of theirs.
    variance = 0.3**2 + 3 * 0.18**2
    assert noise.seeds(1.1, 400) == int(np.ceil(variance * (1.96 / np.log(1.1)) ** 2))
    assert noise.seeds(1.1, 6400) < needed < noise.seeds(1.1, 400)


def make_table(rng):
    runs = sample(rng, 2, 30, spread=0.1)
    base, half = runs["base"], runs["half"]
    live = Runs(flops=base.flops * 0.6, success=base.success)
    flat = Runs(flops=base.flops * 0.8, success=half.success)
    return {
        "base": base,
        "base" + LIVE_SUFFIX: live,
        "grpo_thin": half,
        "drawn_flat": flat,
        "drawn": base,
        "drawn" + FREE_SUFFIX: Runs(flops=base.flops / 8, success=base.success),
    }


def test_ingredients_multiply_to_the_whole(rng):
    found = json.loads(json.dumps(compare(make_table(rng), "base", 20)))
    *chain, free = found["ingredients"]
    names = ["base" + LIVE_SUFFIX, "grpo_thin", "drawn_flat", "drawn"]
    assert [x["after"] for x in chain] == names
    assert free["after"] == "drawn" + FREE_SUFFIX
    for i in range(len(SHARES) - 1):
        product = np.prod([x["savings"][i]["value"] for x in chain])
        assert product == pytest.approx(found["savings"]["drawn"][i]["value"])


def test_against_another_method_the_gain_is_its_own():
    slow, fast = learn([2.0], [[0.6, 0.8]]), learn([1.0], [[0.6, 0.8]])
    found = against({"slow": slow, "fast": fast}, "slow", 20)
    rise = 1 - np.exp(-8 / 2.0)
    assert found["gain"] == pytest.approx([0.0, 0.7 * rise], abs=0.02)
    ratios = [x["value"] for x in found["savings"]["fast"]][:3]
    assert ratios == pytest.approx([2.0] * 3, rel=0.05)
    assert [x["value"] for x in found["savings"]["slow"]] == [1.0] * 4


def test_the_verdict_says_what_the_numbers_say(rng):
    found = compare(make_table(rng), "base", 20) | {"seeds": [0, 1], "power": None}
    text = verdict.text(found, "base")
    assert "(exact, the same runs) needs 1.67 times less" in text
    assert "Thinning what is left" in text and "The PROFILE" in text
    assert "if it were free, needs" in text and "2 seeds" in text
    for module in (page, verdict, main):
        assert doctest.testmod(module).failed == 0


def test_the_figure_of_two_lines_shows_the_saving_of_the_table(tmp_path, monkeypatch):
    """Its arrow, from the curves of the runs, is the bootstrap's estimate."""
    found = json.loads(main.RESULTS.read_text())
    result = next(iter(found["testbeds"].values()))
    saved = result["savings"]["grpo_thin"][2]["value"]
    kept = []
    monkeypatch.setattr(page.plt, "close", kept.append)
    page.pair(found, tmp_path / "pair.png")
    (figure,) = kept
    (axis,) = figure.axes
    (arrow,) = [x for x in axis.texts if x.arrow_patch is not None]
    (words,) = [x.get_text() for x in axis.texts if x.get_text()]
    assert arrow.xyann[0] / arrow.xy[0] == pytest.approx(saved, rel=0.01)
    assert arrow.xy[1] == arrow.xyann[1] == result["targets"][2]
    assert words == f"{saved:.1f} times less" and len(axis.lines) == 2


def test_no_figure_of_two_lines_without_the_thinned_method(tmp_path):
    testbed = {"final": {"grpo": 0.5}, "seeds": [0]}
    page.pair(
        {"baseline": "grpo", "testbeds": {"bed": testbed}, "runs": []},
        tmp_path / "pair.png",
    )
    assert not (tmp_path / "pair.png").exists()


def fake(run, *, last, steps):
    run.metrics.parent.mkdir(parents=True)
    run.metrics.write_text(json.dumps({"step": last}) + "\n")
    (run.folder / "config.json").write_text(json.dumps({"train.steps": steps}))


def test_finished_runs_are_skipped_and_begin_from_one_policy(tmp_path):
    runs = plan(tmp_path, ["bed"], ["grpo", "a.b:mine"], [0, 1], own={"grpo": ["--x"]})
    assert [x.seed for x in runs] == [0, 0, 1, 1], "whole comparisons come first"
    initial = {run.initial for run in runs}
    assert len(initial) == 2
    for run in initial:
        run.folder.mkdir(parents=True)
        for name in ("policy", "profile.chunks"):
            (run.folder / name).mkdir()
        (run.folder / "profile.parquet").write_text("profile.parquet")
    assert all(run.finished for run in initial)
    for run in runs:
        fake(run, last=9, steps=10)
        assert not run.finished
        fake_again = run.metrics.read_text() + json.dumps({"step": 10}) + "\n"
        run.metrics.write_text(fake_again)
    assert list(Pool(jobs=2, threads=1, limit=0)(runs)) == []
    fresh = Run(work=tmp_path, testbed="bed", method="dapo", seed=1)
    fresh.prepare()
    assert (fresh.folder / "profile.parquet").read_text() == "profile.parquet"
    fresh.prepare()  # and leaves a folder alone that is there
    assert fresh.command()[-2:] == ["--methods", "dapo"]
    assert Run(work=tmp_path, testbed="b", method=INITIAL, seed=0).command()[-1] == (
        "--only-initial"
    )


def test_methods_can_have_options_of_their_own(tmp_path):
    names, options = ["grpo", "a.b:mine"], ["--x", "1"]
    runs = plan(
        tmp_path, ["bed"], names, [0], options, own={"mine": ["--train.steps", "7"]}
    )
    flags = {run.label: run.command()[-6:-2] for run in runs}
    assert flags["grpo"][2:] == ["--x", "1"]
    assert flags["mine"] == ["--x", "1", "--train.steps", "7"]
    assert "--train.steps" not in runs[1].initial.command()
    args = parse(["--own", "dapo", "--train.steps 5 --y 'a b'", "--", "--seed", "3"])
    assert args.own == {"dapo": ["--train.steps", "5", "--y", "a b"]}
    assert args.options == ["--seed", "3"]


def test_a_method_with_a_profile_of_its_own_begins_from_that(tmp_path):
    own = {"two": ["--train.steps", "7", "--profile.samples", "2"]}
    plain, two = plan(tmp_path, ["bed"], ["grpo", "a.b:two"], [0], own=own)
    assert "--profile.samples" not in plain.initial.command()
    assert two.initial.command()[-3:-1] == ["--profile.samples", "2"]
    assert "--train.steps" not in two.initial.command()
    assert "--profile.samples" not in two.command()  # it is there, as it is
    assert two.command()[-4:] == ["--train.steps", "7", "--methods", "a.b:two"]
    assert two.initial.folder != plain.initial.folder


def test_one_thread_means_one(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--a=b")
    found = environment(1)
    assert found["NPROC"] == "1"
    assert found["XLA_FLAGS"] == "--a=b --xla_cpu_multi_thread_eigen=false"
    assert environment(0)["XLA_FLAGS"] == "--a=b"


@pytest.mark.parametrize(
    "argv",
    [
        ["--methods", "dapo"],
        ["--methods", "grpo_token", "x:grpo_token"],
        ["--methods", "grpo_token", "--own", "dapo", "--x 1"],
    ],
)
def test_mistakes_end_with_two(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    assert "--methods" in capsys.readouterr().err


def test_testbeds_of_an_earlier_command_stay():
    def results(*names, baseline="grpo", left=()):
        return {
            "baseline": baseline,
            "testbeds": {name: {"made": baseline} for name in names},
            "runs": [{"testbed": name, "seed": len(names)} for name in names],
            "unfinished": [f"{name}/grpo/seed9" for name in left],
        }

    before = results("a", "b", left=("a", "b"))
    found = merge(before, results("b", left=("b",)))
    assert found["testbeds"].keys() == {"a", "b"}
    assert found["runs"] == [{"testbed": "a", "seed": 2}, {"testbed": "b", "seed": 1}]
    assert found["unfinished"] == ["a/grpo/seed9", "b/grpo/seed9"]
    with pytest.raises(ValueError, match="compares a with grpo, not dapo"):
        merge(before, results("b", baseline="dapo"))
    assert merge(before, results("a", "b", baseline="dapo"))["baseline"] == "dapo"
