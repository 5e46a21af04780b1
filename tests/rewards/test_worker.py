"""Whatever a verifier does, the other completions get their rewards."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from sgpo_jax.data import Query
from sgpo_jax.rewards import Worker, supervisor

from . import misbehaviour

HERE = misbehaviour.__name__
NAN = float("nan")


def _query(verifier="exact", reference="7", **metadata):
    return Query(
        id="q", prompt="4+3=", reference=reference, verifier=verifier, metadata=metadata
    )


def _obey(worker, *acts):
    return worker.score(acts, [_query(f"{HERE}:obey")] * len(acts))


@pytest.fixture(scope="module")
def worker():
    with Worker(deadline=2.0, memory_gib=0.5, workers=2) as worker:
        yield worker


def test_exact(worker):
    values = worker.score(["7", " 7\n", "8", ""], [_query()] * 4)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [1, 1, 0, 0])


def test_empty_batch_and_unequal_lengths(worker):
    assert worker.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 completions for 1 queries"):
        worker.score(["7", "8"], [_query()])


@pytest.mark.parametrize(
    ("act", "value", "kind"),
    [
        ("true", 1.0, None),
        ("numpy", 0.5, None),
        ("print", 1.0, None),
        ("stderr", 1.0, None),
        ("none", NAN, "none"),
        ("nan", NAN, "nan"),
        ("inf", NAN, "nan"),
        ("text", NAN, "type"),
        ("list", NAN, "exception"),
        ("huge", NAN, "exception"),
        ("raise", NAN, "exception"),
        ("exit", NAN, "exception"),
        ("interrupt", NAN, "exception"),
        ("recursion", NAN, "exception"),
        ("memory", NAN, "exception"),
        ("grow", NAN, "exception"),
        ("hang", NAN, "timeout"),
        ("segfault", NAN, "crash"),
        ("abort", NAN, "crash"),
        ("quit", NAN, "crash"),
        ("close", NAN, "crash"),
    ],
)
def test_one_bad_item_costs_itself_only(worker, act, value, kind):
    before = dict(worker.problems.counts)
    values = _obey(worker, "right", "right", act, "right", act, "right")
    np.testing.assert_array_equal(values, [1, 1, value, 1, value, 1])
    new = {k: n - before.get(k, 0) for k, n in worker.problems.counts.items()}
    assert {k: n for k, n in new.items() if n} == ({kind: 2} if kind else {})


def test_problems_say_what_happened_and_stay_short():
    with Worker(deadline=0.5) as worker:
        assert not worker.problems
        _obey(worker, "segfault", "hang", "surrogate", *["raise"] * 9)
        kinds = [problem.kind for problem in worker.problems.examples]
        assert kinds == ["crash", "timeout"] + ["exception"] * 3
        text = str(worker.problems)
        assert "\\\\ud800" in ascii(text)
        assert "killed by SIGSEGV" in text and "after 0.5 s" in text
        assert "10 unscorable: exception" in text and "KeyError" in text
        assert len(text) < 2000


@pytest.mark.slow
def test_deadline_is_per_item_not_per_batch(worker):
    values = worker.score(["0.4"] * 4 + ["9"] + ["0"], [_query(f"{HERE}:slow")] * 6)
    np.testing.assert_array_equal(values, [1] * 4 + [NAN, 1])


def test_a_batch_has_a_deadline_too():
    """Or a policy that makes every verifier hang would keep other hosts waiting."""
    with Worker(deadline=5.0, batch_deadline=1.0, workers=1) as worker:
        begun = time.monotonic()
        values = worker.score(["0.4"] * 50, [_query(f"{HERE}:slow")] * 50)
        assert time.monotonic() - begun < 15, "imports, and 20 s of items"
        scored = ~np.isnan(values)
        assert 1 <= scored.sum() < 50
        assert scored[: scored.sum()].all()
        assert worker.problems.counts == {"timeout": int((~scored).sum())}
        assert "the batch took longer than 1 s" in str(worker.problems)
        again = worker.score(["0"], [_query(f"{HERE}:slow")])
        np.testing.assert_array_equal(again, [1])


def test_slow_items_keep_every_scorer_busy(tmp_path):
    """Each item waits until as many processes as there are scorers are at work."""
    with Worker(deadline=60.0, workers=3) as worker:
        asked = [_query(f"{HERE}:meet", "3")] * 6
        values = worker.score([str(tmp_path)] * 6, asked)
    np.testing.assert_array_equal(values, np.ones(6))
    assert len(list(tmp_path.iterdir())) == 3


def test_what_was_added_is_scored_before_the_batch_is_complete(tmp_path):
    """The sampler's last completion here waits for the score of its first."""
    with Worker(deadline=60.0, workers=1) as worker, worker.batch() as batch:
        batch.add(str(tmp_path), _query(f"{HERE}:meet", "1"))
        batch.send()
        assert _wait_for(lambda: list(tmp_path.iterdir()), 60.0)
        batch.add(str(tmp_path), _query(f"{HERE}:meet", "1"))
        np.testing.assert_array_equal(batch.results(), np.ones(2))


def test_a_weighted_sum_waits_once_and_what_came_before_does_not_wait():
    slow = "tests.rewards.misbehaviour:slow"
    asked = Query(id="q", prompt="", reference="", verifier=f"0.5*{slow} + 0.5*{slow}")
    with Worker(workers=2) as worker:
        worker.check([dataclasses.replace(asked, reference="0")])
        assert worker.score(["0.5"], [asked]) == [1]
        assert 0 < worker.queue <= 1
        with worker.batch() as batch:
            for _ in range(4):
                batch.add("0", asked)
            while batch.waiting():
                batch.send()
                time.sleep(0.01)
            np.testing.assert_array_equal(batch.results(), [1] * 4)
        assert worker.queue == 0


def test_the_queue_is_how_many_wait_for_how_long():
    """Nine wait a second for the one before them."""
    with Worker(deadline=1.0, workers=1) as worker:
        _obey(worker, "true")
        _obey(worker, "hang", *["true"] * 9)
        assert 9 < worker.queue <= 10
        _obey(worker, *["true"] * 10)
        assert worker.queue <= 10


def test_many_cheap_items_are_one_exchange(worker):
    queries = [_query()] * 256
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        assert worker.score(["7", "8"] * 128, queries).sum() == 128
        seconds.append(time.perf_counter() - start)
    # Measured 8 ms on a busy machine; one round trip each would take 0.7 s.
    assert min(seconds) < 0.2


def test_respawn_is_a_fork(worker):
    _obey(worker, "right")
    before = worker._link.pid
    assert np.isnan(_obey(worker, *["segfault"] * 20)).all()
    assert worker._link.pid == before


def test_text_arrives_unchanged(worker):
    texts = ["\ud800", "a\x00b", "\u202e٣٤\u200b", "<|im_end|>", "e\u0301", "x" * 2**20]
    queries = [
        _query(f"{HERE}:metadata", text=text, numbers=[1, 2.5, None]) for text in texts
    ]
    np.testing.assert_array_equal(worker.score(texts, queries), np.ones(len(texts)))


def test_reward_function_in_the_style_of_trl(worker):
    query = _query(f"trl:{HERE}:columns", reference="4+3=7", bonus=0.25)
    values = worker.score(["7", "8", "?"], [query] * 3)
    np.testing.assert_array_equal(values, [1.25, 0.25, NAN])


@pytest.mark.parametrize(
    "name", ["exactt", "no.such.module:score", f"{HERE}:nothing", "", "trl:exact"]
)
def test_unknown_verifier_is_an_error_at_once(worker, name):
    with pytest.raises(ValueError, match="verifier '"):
        worker.score(["7"], [_query(name)])
    assert worker.score(["7"], [_query()]) == 1


def test_missing_package_is_an_error_with_the_remedy(tmp_path, monkeypatch):
    # Hides the package from the scoring process, if it is there.
    (tmp_path / "reasoning_gym.py").write_text("raise ImportError('hidden')")
    monkeypatch.syspath_prepend(tmp_path)
    with (
        Worker() as worker,
        pytest.raises(ValueError, match=r"pip install 'sgpo_jax\[reasoning-gym\]'"),
    ):
        worker.score(["7"], [_query("reasoning_gym")])


def test_poison_ends_after_some_batches_or_with_the_item():
    query = _query(f"{HERE}:count_calls")
    with Worker(workers=1) as worker:
        seen = [worker.score(["a", "b"], [query] * 2).tolist() for _ in range(18)]
    kept = supervisor.BATCHES
    assert seen[:kept] == [[2 * i + 1, 2 * i + 2] for i in range(kept)]
    assert seen[kept:] == [[1, 2], [3, 4]]
    with Worker(workers=1, isolate=True) as worker:
        values = worker.score(["a", "b"], [query] * 2)
        np.testing.assert_array_equal(values, [1, 1])


def test_what_raises_in_a_used_process_is_tried_in_a_fresh_one():
    """A function that leaks files or memory has them all again."""
    query = _query(f"{HERE}:wear_out")
    together = _query(f"trl:{HERE}:wear_out_together")
    with Worker(workers=2) as worker:
        # The first leaves two processes behind, neither of which can do the second.
        for asked in (query, together):
            for batch in (["a"] * 6, ["b"], ["c"] * 6, ["d"] * 6):
                values = worker.score(batch, [asked] * len(batch))
                np.testing.assert_array_equal(values, np.ones(len(batch)))
        assert not worker.problems
    with Worker(workers=1) as worker:
        np.testing.assert_array_equal(worker.score("aba", [query] * 3), [1, NAN, NAN])
        assert worker.problems.counts == {"exception": 2}


def test_functions_of_ones_own_do_not_reach_built_in_verifiers():
    own, built_in = _query(f"{HERE}:poison"), _query("gsm8k")
    with Worker(workers=1) as worker:
        for queries in ([built_in, own, built_in], [built_in] * 3, [own, built_in]):
            values = worker.score(["7"] * len(queries), queries)
            np.testing.assert_array_equal(values, np.ones(len(queries)))


def test_no_process_is_left_behind(worker, tmp_path):
    late = tmp_path / "late"
    assert worker.score([str(late)], [_query(f"{HERE}:unfork")]) == 1
    time.sleep(1.3)
    assert not late.exists()


def test_scoring_process_imports_little():
    query = _query(f"{HERE}:has_module")
    heavy = ["jax", "pyarrow", "tensorflow_datasets", "reasoning_gym"]
    with Worker() as worker:
        values = worker.score(["json", *heavy], [query] * 5)
    np.testing.assert_array_equal(values, [1, 0, 0, 0, 0])


def test_what_is_forked_for_every_batch_is_small():
    """Each module of it is copied with every scorer."""
    code = "import sys, sgpo_jax.rewards.supervisor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not {"numpy", "asyncio", "sgpo_jax.data"} & set(done.stdout.split())


@pytest.mark.slow
def test_import_that_hangs_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "hanging_import.py").write_text("while True: pass")
    monkeypatch.syspath_prepend(tmp_path)
    with (
        Worker(startup=1.0) as worker,
        pytest.raises(RuntimeError, match="longer than `startup` or crashed"),
    ):
        worker.score(["7"], [_query("hanging_import:score")])


def test_closed_and_killed_workers_start_again(worker):
    worker.close()
    assert worker.score(["7"], [_query()]) == 1
    os.kill(worker._link.pid, signal.SIGKILL)
    worker._link._process.wait()
    assert worker.score(["7"], [_query()]) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGKILL"])
def test_a_dying_parent_leaves_no_orphans(name):
    # A test run in the background inherits that interrupts are ignored.
    script = f"""
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from sgpo_jax.data import Query
        from sgpo_jax.rewards import Worker
        query = Query(id="q", prompt="", reference="", verifier="{HERE}:obey")
        worker = Worker(deadline=60.0)
        worker.score(["right"], [query])
        print(worker._link.pid, flush=True)
        worker.score(["hang"], [query])
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    # Stderr holds the traceback of the interrupt.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, text=True, env=env, **pipes) as parent:
        supervisor = int(parent.stdout.readline())
        scorer = _wait_for(lambda: _children(supervisor))[0]
        parent.send_signal(getattr(signal, name))
        parent.wait(timeout=10)
    assert _wait_for(lambda: not _alive(supervisor) and not _alive(scorer))


def _wait_for(condition, seconds=10.0):
    due = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < due:
        time.sleep(0.02)
    return found


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("limits", [{"deadline": 0.0}, {"memory_gib": -1.0}])
def test_limits_must_be_positive(limits):
    with pytest.raises(ValueError, match="must be positive"):
        Worker(**limits)
