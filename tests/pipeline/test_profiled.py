"""Progress of profiling, and profiles from elsewhere."""

from unittest import mock

import pytest

from sgpo_jax import cli, methods, models, planning, rewards
from sgpo_jax.pipeline import Display, open_run, profiled
from sgpo_jax.pipeline.folder import flatten, write_json
from sgpo_jax.profiling import Profile
from sgpo_jax.session import Session
from sgpo_jax.testing import tiny_experiment


def test_the_success_shown_is_that_of_all_chunks(monkeypatch):
    """Questions come by level: the last chunk alone may be the hardest."""
    chunks = [
        Profile(ids=(name,), samples=[8], successes=[solved])
        for name, solved in (("easy", 8), ("hard", 0))
    ]

    def measure(*_, on_chunk, **__):
        for number, chunk in enumerate(chunks, start=1):
            on_chunk(number, 2, chunk)
        return chunks[0]

    shown = []
    display, session = mock.Mock(spec=Display), mock.Mock(spec=Session)
    display.progress.return_value.__enter__ = lambda _: lambda *said: shown.append(said)
    display.progress.return_value.__exit__ = lambda *_: None
    session.initial_rollouts, session.worker = mock.Mock(), mock.Mock(solved_at=1.0)
    monkeypatch.setattr(profiled, "measure_by", measure)
    monkeypatch.setattr(profiled, "made_from", lambda *_: {})
    profiled.measured(
        session,
        mock.Mock(spec=models.Policy, params=None),
        [],
        samples=8,
        chunks=mock.Mock(spec=profiled.Chunks),
        display=display,
    )
    assert shown == [(1, "success 1.000"), (2, "success 0.500")]


def test_a_profile_of_other_questions_is_refused_before_any_work(tmp_path, capsys):
    found = Profile(ids=("a", "b"), samples=[8, 8], successes=[4, 1])
    found.save(tmp_path / "profile.parquet")
    config = tiny_experiment(str(tmp_path), methods={"sgpo": methods.named("sgpo")})
    write_json(tmp_path / "config.json", flatten(config))
    for more in ([], ["--dry-run"]):
        assert cli.run_command(["run", "--out", config.out, *more]) == 2
        assert "lacks" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "policy").exists()


@pytest.mark.slow
def test_a_profile_of_more_questions_is_planned_for_those_trained_on(tmp_path):
    """Pass rates of a whole file, of which some questions are held out."""
    config = tiny_experiment(str(tmp_path), methods={"sgpo": methods.named("sgpo")})
    with rewards.Worker() as worker:
        run = open_run(config, worker)
    ids = [query.id for query in (*run.held_out, *run.train)]
    count = len(ids)
    found = Profile(ids=tuple(ids), samples=[8] * count, successes=[2] * count)
    found.save(tmp_path / "profile.parquet")
    write_json(tmp_path / "config.json", flatten(config))
    assert cli.run_command(["train", "--out", config.out]) == 0
    plan = planning.Plan.load(tmp_path / "plans" / "sgpo.json")
    trained = {name for phase in plan.phases for name in phase.ids}
    assert trained == {query.id for query in run.train}
