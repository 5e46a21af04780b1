"""Completions of training on disk: once each, and never others than were written."""

import collections
import contextlib

import jax
import numpy as np
import pytest

from sgpo_jax import methods, models, training
from sgpo_jax.artefacts import DamagedError
from sgpo_jax.profiling import read_completions
from sgpo_jax.testing import (
    TINY,
    MemoryLog,
    MemoryStore,
    ScriptedRollouts,
    tiny_buckets,
    tiny_queries,
)

METHOD = methods.Method(prompts=methods.Shuffled(group_size=3))


@pytest.fixture(scope="module")
def programs():
    return training.TrainPrograms(
        config=TINY, loss=METHOD.loss, optimizer=METHOD.optimizer.make()
    )


class Killed(Exception):
    pass


class Killing(ScriptedRollouts):
    """Ends at a call, as a process is killed."""

    at = 0

    def __call__(self, *args, **keywords):
        if len(self.steps) == self.at:
            raise Killed
        return super().__call__(*args, **keywords)


def session(programs, memory, folder, source, method=METHOD):
    """Train as one process does, from what earlier ones left."""
    kept = training.CompletionLog(4, method="mine", folder=folder)
    learner = training.Learner(
        programs=programs,
        rollouts=source,
        queries=tiny_queries(),
        method=method,
        buckets=tiny_buckets(),
        config=training.TrainConfig(
            rollouts=12, steps=6, eval_every=2, max_skipped=3, max_rollbacks=3
        ),
        seed=0,
        completions=kept,
    )
    if not memory.saved:
        params = models.init(TINY, key=jax.random.key(0))
        memory.save(0, learner.start(programs.init(params)))
    start, progress = memory.restore()
    training.train(
        learner,
        progress,
        start=start,
        store=memory,
        log=MemoryLog(),
        evaluate=lambda progress: training.held_out_metrics(
            source, tiny_queries(3), progress, samples=2, keep=kept.evaluation
        ),
    )


@pytest.fixture(scope="module")
def whole(programs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    session(programs, MemoryStore(), folder, ScriptedRollouts())
    return folder


@pytest.mark.slow
def test_each_step_and_evaluation_has_some(whole):
    rows = read_completions(whole).to_pylist()
    counts = collections.Counter((row["part"], row["step"]) for row in rows)
    assert counts == {
        **{("train", step): 4 for step in range(1, 7)},
        **{("evaluation", step): 4 for step in (0, 2, 4, 6)},
    }
    assert {row["method"] for row in rows} == {"mine"}
    spread = [row["id"] for row in rows if (row["part"], row["step"]) == ("train", 1)]
    assert len(set(spread)) == 4  # one of each group
    assert any(row["reward"] is None for row in rows)
    assert all(row["completion"] for row in rows)


@pytest.mark.parametrize("at", range(1, 10))
def test_a_killed_run_has_each_completion_once(programs, whole, tmp_path, at):
    """Whether it was killed in a step or in an evaluation, of which there are ten."""
    source = Killing()
    source.at = at
    memory = MemoryStore()
    with contextlib.suppress(Killed):
        session(programs, memory, tmp_path, source)
    session(programs, memory, tmp_path, ScriptedRollouts())
    assert read_completions(tmp_path) == read_completions(whole)


def test_a_checkpoint_that_was_lost_takes_its_completions_with_it(
    programs, whole, tmp_path
):
    """A kill between the files of completions and the checkpoint they belong to."""
    memory = MemoryStore()
    session(programs, memory, tmp_path, ScriptedRollouts())
    del memory.saved[-2:]
    session(programs, memory, tmp_path, ScriptedRollouts())
    assert read_completions(tmp_path) == read_completions(whole)


def test_abandoned_steps_leave_none(programs, tmp_path):
    """After going back, only the completions of the steps that count are there."""
    source = ScriptedRollouts()

    def exploding(advantage, groups, *, seed):
        bad = source.steps[-1] in (3, 4, 5)
        return np.full(len(advantage), np.inf if bad else 1, np.float32)

    session(
        programs,
        MemoryStore(),
        tmp_path,
        source,
        METHOD.replace(subsample=exploding),
    )
    rows = read_completions(tmp_path).to_pylist()
    counts = collections.Counter(r["step"] for r in rows if r["part"] == "train")
    assert counts == dict.fromkeys(range(1, 7), 4)
    assert (16 << 24) + 5 in source.steps


def test_damage_is_named_wherever_it_is(whole, tmp_path):
    """A changed byte is an error with the file's name, or changes nothing."""
    intact = min(whole.glob("*-train.parquet"))
    table, content = read_completions(intact), intact.read_bytes()
    path = tmp_path / intact.name
    refused = 0
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert read_completions(tmp_path) == table, place
        except DamagedError as error:
            refused += 1
            assert str(error).startswith(f"{path} is damaged: ")
            assert "\n" not in str(error)
    assert refused > len(content) / 7 / 3
    path.write_bytes(content[:-20])
    with pytest.raises(DamagedError, match=intact.name):
        read_completions(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="no completions"):
        read_completions(tmp_path)
