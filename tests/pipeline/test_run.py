"""The main job end to end, on a small mixture and a small policy."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent.parent
SMALL = [
    *("--data", "procedural:families=bits+reversal,levels=1+2+3,count=12"),
    *("--model.num-layers", "1", "--model.embed-dim", "32", "--model.num-heads", "2"),
    *("--model.num-kv-heads", "2", "--model.head-dim", "16", "--model.mlp-dim", "64"),
    *("--sft.steps", "60", "--sft.batch-size", "64"),
    *("--sft.demonstrations", "2000", "--sampler.lanes", "8"),
    *("--pack.row-length", "64", "--pack.rows", "8", "--profile.chunk", "16"),
    *("--train.steps", "6", "--train.rollouts", "32", "--train.eval-every", "2"),
    *("--eval.samples", "2", "--eval.final-samples", "4"),
]

THREE = ("grpo_token", "sgpo", "tracked")
"""With no state, with a plan's cursors, and with a belief."""


def cache_option(cache: pathlib.Path) -> str:
    """No path is no cache."""
    return "" if cache == pathlib.Path("") else str(cache)


def run(command: str, out: pathlib.Path, cache: pathlib.Path, *more: str) -> int:
    from sgpo_jax import cli

    args = ["--out", str(out), "--cache", cache_option(cache), *SMALL, *more]
    if "--methods" not in more:
        args += ["--methods", *THREE]
    return cli.run_command([command, *args])


def lines(out: pathlib.Path, method: str):
    """Metrics without what depends on the clock."""
    from sgpo_jax.training import read_metrics

    found = read_metrics(out / "methods" / method / "metrics.jsonl")
    for line in found:
        clocks = ("step_time_sec", "compiles", "time/", "tokens_per_sec/", "goodput")
        clocks += ("queue/score",)
        for name in [name for name in line if name.startswith(clocks)]:
            line.pop(name)
        for entry in line.get("ledger", {}).values():
            entry.pop("seconds")
    return found


def final_params(out: pathlib.Path, method: str):
    import orbax.checkpoint as ocp

    folder = out / "methods" / method / "checkpoints"
    with ocp.CheckpointManager(folder.resolve()) as manager:
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore())
        return manager.latest_step(), manager.restore(manager.latest_step(), args=args)


def policy_fingerprint(out: pathlib.Path) -> str:
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager((out / "policy").resolve()) as manager:
        args = ocp.args.Composite(plain=ocp.args.JsonRestore())
        return manager.restore(0, args=args)["plain"]["fingerprint"]


def assert_same_run(got: pathlib.Path, want: pathlib.Path, methods):
    import jax

    for method in methods:
        assert lines(got, method) == lines(want, method)
        (step, a), (other, b) = final_params(got, method), final_params(want, method)
        assert step == other == 6
        jax.tree.map(np.testing.assert_array_equal, a["arrays"], b["arrays"])


def test_a_run_leaves_everything_its_report_needs(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.json",
        "policy",
        "profile.parquet",
        "plans",
        "methods",
        "eval",
        "report.md",
        "figures",
    }
    report = (finished / "report.md").read_text()
    for figure in ("profile", "accuracy", "dead_groups", "padding"):
        assert f"figures/{figure}.png" in report
        assert (finished / "figures" / f"{figure}.png").stat().st_size > 5_000
    for method in THREE:
        assert list((finished / "methods" / method / "tensorboard").iterdir())
        assert [line["step"] for line in lines(finished, method)] == list(range(7))


def test_the_manifest_has_every_part_and_what_it_was_made_from(finished):
    parts = json.loads((finished / "manifest.json").read_text())
    names = {f"method {x}" for x in THREE}
    names |= {f"evaluation of {x}" for x in ("initial", *THREE)}
    assert parts.keys() >= names | {"initial policy", "profile", "plan of sgpo"}
    policy = policy_fingerprint(finished)
    assert parts["profile"]["policy"] == policy
    assert parts["profile"]["questions"] and parts["profile"]["samples"] == 8
    for label in THREE:
        made = parts[f"method {label}"]
        assert (made["policy"], made["steps"]) == (policy, 6)
        assert ("profile" in made) == (label in ("sgpo", "tracked"))
        assert ("plan" in made) == (label == "sgpo")
        assert parts[f"evaluation of {label}"]["steps"] == 6


def test_the_ledger_conserves_rollouts(finished):
    from sgpo_jax.profiling import Profile

    profile = Profile.load(finished / "profile.parquet")
    assert (profile.samples + profile.unscorable == 8).all()
    for method in THREE:
        found = lines(finished, method)
        spent = found[-1]["ledger"]
        sampled = sum(line["rollouts"] for line in found[1:])
        trained = sum(line["trained"] for line in found[1:])
        assert spent["generation"]["rollouts"] == sampled
        assert spent["training"]["rollouts"] == trained
        profiled = spent.get("profiling", {}).get("rollouts", 0)
        assert profiled == (0 if method == "grpo_token" else 8 * len(profile))
        total = sum(
            spent[phase]["flops"]
            for phase in ("profiling", "generation", "rewards", "scoring", "training")
            if phase in spent
        )
        assert found[-1]["total_flops"] == pytest.approx(total)


def test_sampling_and_training_agree_on_log_probabilities(finished):
    for method in THREE:
        gaps = [x["sampler_gap"] for x in lines(finished, method) if "sampler_gap" in x]
        assert gaps
        # float32, other summation orders
        assert max(gaps) < 1e-4


def test_a_second_call_does_nothing_again(finished, cache, tmp_path):
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.jsonl")}
    profile = (out / "profile.parquet").stat().st_mtime_ns
    assert run("run", out, cache) == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.jsonl")} == before
    assert (out / "profile.parquet").stat().st_mtime_ns == profile


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_other_settings_in_the_same_folder_are_refused(finished, cache, capsys, more):
    assert run("run", finished, cache, "--profile.samples", "4", *more) == 2
    assert "profile.samples=8, not 4; use another --out" in capsys.readouterr().err


def test_stages_one_by_one_give_the_same_run(finished, cache, tmp_path):
    """And the later ones take their settings from the folder."""
    from sgpo_jax import cli
    from sgpo_jax.pipeline.folder import read_json

    out = tmp_path / "staged"
    assert run("sft", out, cache, "--methods", "sgpo") == 0
    assert not (out / "profile.parquet").exists()
    for stage in ("profile", "plan", "train", "eval", "report"):
        assert cli.run_command([stage, "--out", str(out), "--cache", str(cache)]) == 0
    assert_same_run(out, finished, ("sgpo",))
    assert (out / "plans" / "sgpo.json").read_text() == (
        finished / "plans" / "sgpo.json"
    ).read_text()
    evals = sorted((out / "eval").iterdir())
    assert [p.name for p in evals] == ["initial.json", "sgpo.json"]
    for path in evals:
        ours = read_json(path)
        theirs = read_json(finished / "eval" / path.name)
        ours["cost"].pop("seconds"), theirs["cost"].pop("seconds")
        assert ours == theirs


def test_the_initial_policy_is_a_function_of_its_seed(finished, tmp_path, cache):
    """Made again without the cache it has the same bits; another seed has others."""
    from sgpo_jax.profiling import Profile

    expected = Profile.load(finished / "profile.parquet").source["policy"]
    assert run("sft", tmp_path / "again", pathlib.Path("")) == 0
    assert policy_fingerprint(tmp_path / "again") == expected
    other = ("--seed", "1", "--sft.steps", "2")
    assert run("sft", tmp_path / "other", cache, *other) == 0
    assert policy_fingerprint(tmp_path / "other") != expected


def test_a_killed_run_goes_on_bit_for_bit(finished, cache, tmp_path):
    """SIGKILL, in the profile and in training; then to the end."""
    out = tmp_path / "killed"
    call = "import sys; from sgpo_jax.cli import main; main(sys.argv[1:])"
    one = ("--methods", "sgpo")
    args = ["run", "--out", str(out), "--cache", str(cache), *SMALL, *one]
    reached = [
        lambda: len(list(out.glob("profile.chunks/*.parquet"))) >= 1,
        lambda: len(lines(out, "sgpo")) >= 4,
    ]
    for condition in reached:
        process = subprocess.Popen(
            [sys.executable, "-c", call, *args],
            cwd=ROOT,
            env=os.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not condition():
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run("run", out, cache, *one) == 0
    assert_same_run(out, finished, ("sgpo",))
    from sgpo_jax.profiling import Profile

    ours, theirs = (Profile.load(x / "profile.parquet") for x in (out, finished))
    assert ours.fingerprint() == theirs.fingerprint()


def test_one_more_method_uses_policy_and_profile(finished, cache, tmp_path):
    """A method from outside the package joins a finished run; nothing is done again."""
    out = tmp_path / "more"
    shutil.copytree(finished, out)
    kept = ["profile.parquet", "methods/grpo_token/metrics.jsonl", "eval/initial.json"]
    before = [(out / name).stat().st_mtime_ns for name in kept]
    more = (
        "--methods",
        "examples.own_method.own:mine",
        "--methods.mine.averaging",
        "0.5",
    )
    assert run("run", out, cache, *more) == 0
    assert [(out / name).stat().st_mtime_ns for name in kept] == before
    assert_same_run(out, finished, THREE)
    evaluated = [x for x in lines(out, "mine") if "eval/success_averaged" in x]
    assert len(evaluated) == 4
    report = (out / "report.md").read_text()
    assert all(name in report for name in ("grpo_token", "sgpo", "tracked", "mine"))
    # Averaged parameters are evaluated at the end as the raw ones are.
    assert (out / "eval/mine.averaged.json").exists()
    assert "mine.averaged" in report


def test_another_method_under_a_used_label_is_refused(
    finished, cache, tmp_path, capsys
):
    out = tmp_path / "other"
    shutil.copytree(finished, out)
    assert run("run", out, cache, "--methods.tracked.minibatches", "2") == 2
    error = capsys.readouterr().err
    assert "another method called tracked (minibatches: 1 before, 2 now)" in error


@pytest.mark.parametrize("lost", ["checkpoint", "line"])
def test_a_run_killed_in_its_last_step_is_not_taken_for_finished(
    finished, cache, tmp_path, lost
):
    """The line of the last step is written while its checkpoint still is, or later."""
    out = tmp_path / "killed"
    shutil.copytree(finished, out)
    method = out / "methods" / "tracked"
    if lost == "checkpoint":
        shutil.rmtree(method / "checkpoints" / "6")
    else:
        written = (method / "metrics.jsonl").read_text().splitlines(keepends=True)
        (method / "metrics.jsonl").write_text("".join(written[:-1]))
    (out / "eval" / "tracked.json").unlink()
    assert run("eval", out, cache) == 0
    assert_same_run(out, finished, ("tracked",))
    evals = [json.loads((x / "eval/tracked.json").read_text()) for x in (out, finished)]
    assert evals[0]["mean"] == evals[1]["mean"]


class Stopping:
    """Sends SIGTERM in the middle of something, and counts what is begun after it."""

    def __init__(self, monkeypatch):
        self.asked, self.after = False, []
        self._patch = monkeypatch.setattr

    def ask(self):
        self.asked = True
        signal.raise_signal(signal.SIGTERM)

    def begins(self, what):
        if self.asked:
            self.after.append(what)
        else:
            self.ask()

    def before(self, owner, name):
        """Ask before the first call of a function."""
        original = getattr(owner, name)

        def wrapped(*args, **keywords):
            self.begins(name)
            return original(*args, **keywords)

        self._patch(owner, name, wrapped)

    def sampling(self, wanted):
        """Ask after the first run of the decode program that fits."""
        from sgpo_jax.sampling import Engine

        original = Engine.sample

        def wrapped(engine, *args, step, on_progress, **keywords):
            def progress(found):
                if self.asked or wanted(step):
                    self.begins("decode")
                on_progress(found)

            return original(engine, *args, step=step, on_progress=progress, **keywords)

        self._patch(Engine, "sample", wrapped)

    def scoring(self):
        """Ask when the first rewards of a batch have come, not of a trial of one."""
        from sgpo_jax.rewards import wire
        from sgpo_jax.rewards.link import Link

        original = Link.receive

        def wrapped(link, timeout):
            records = original(link, timeout)
            found = [r for r in records if r.kind == wire.RESULTS]
            if sum(len(wire.results(r.body).kinds) for r in found) > 1:
                self.begins("receive")
            return records

        self._patch(Link, "receive", wrapped)


EVALUATION = 2**31 - 1  # the noise of evaluations
STOPS = [
    ("profile, sampling", lambda s, m: s.sampling(lambda step: step == 0)),
    ("profile, scoring", lambda s, m: s.scoring()),
    ("evaluation", lambda s, m: s.sampling(lambda step: step == EVALUATION)),
    ("training, compiling", lambda s, m: s.before(m.update, "apply_batch")),
    ("training, sampling", lambda s, m: s.sampling(lambda step: step == 2)),
    ("training, scoring", lambda s, m: s.scoring()),
]


def test_sigterm_is_obeyed_at_once_wherever_it_comes(
    finished, cache, tmp_path, monkeypatch
):
    """In every stage; nothing of the kind that was going on is begun any more, and
    what follows equals an uninterrupted run."""
    from sgpo_jax import session, training

    out, one = tmp_path / "stopped", ("--methods", "tracked")

    def stop(what, arrange, cache=cache):
        with monkeypatch.context() as patch:
            stopping = Stopping(patch)
            arrange(stopping, training)
            assert run("run", out, cache, *one) == 42, what
        assert stopping.asked, what
        assert not stopping.after, what

    stop(
        "fine-tuning",
        lambda s, m: s.before(m.fine_tuning, "apply_batch"),
        pathlib.Path(""),
    )
    for what, arrange in STOPS:
        if what == "training, compiling":
            # Earlier runs of these shapes have left their programs.
            session.forget_programs()
        stop(what, arrange)
        if what == "training, compiling":
            saved = training.Checkpoints(out / "methods" / "tracked" / "checkpoints")
            assert saved.latest() == 0, "an update was made after the signal"
            saved.close()
    assert run("train", out, cache, *one) == 0
    stop("final evaluation", STOPS[2][1])
    assert run("run", out, cache, *one) == 0
    assert_same_run(out, finished, ("tracked",))
