"""Attacks on the scoring processes: each costs its own item, nothing stays behind."""

import os
import signal
import textwrap
import threading
import time

import numpy as np
import pytest

from sgpo_jax.data import Query
from sgpo_jax.rewards import Worker, link, reaping

pytestmark = pytest.mark.slow

NAN = float("nan")
ATTACKS = {
    "good": "return 1.0",
    "poison": "import builtins; builtins.sum = builtins.len = int; return 1.0",
    "forge": """
        import os, socket
        for fd in range(3, 40):
            try: os.write(fd, b"\\0" * 16 + b"\\1" * 200)
            except OSError: pass
        return 1.0
        """,
    "flood": """
        import os
        while True:
            for fd in range(3, 40):
                try: os.write(fd, b"x" * 65536)
                except OSError: pass
        """,
    "kill_supervisor": """
        import os, signal
        os.kill(os.getppid(), signal.SIGKILL)
        import time; time.sleep(60)
        """,
    "stop_supervisor": """
        import os, signal
        os.kill(os.getppid(), signal.SIGSTOP)
        import time; time.sleep(60)
        """,
    "silent": "import time; time.sleep(60)",
    "exit": "import os; os._exit(0)",
}


def attack(completion, reference):
    body = "def act():\n" + textwrap.indent(
        textwrap.dedent(ATTACKS[completion]), "    "
    )
    scope = {}
    exec(body, scope)
    return scope["act"]()


def daemon(completion, reference):
    """Leave a detached process behind: a session of its own, its parent gone."""
    before = os.listdir(reference)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.mkdir(f"{reference}/{os.getpid()}")
            time.sleep(100)
        os._exit(0)
    while os.listdir(reference) == before:
        time.sleep(0.01)
    if completion == "murder":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return 1.0


def variable(completion, reference):
    return float(completion in os.environ)


def query(name, reference="7"):
    return Query(id="q", prompt="", reference=reference, verifier=f"{__name__}:{name}")


@pytest.mark.parametrize(
    ("act", "value"),
    [
        ("poison", 1.0), ("forge", NAN), ("flood", NAN), ("kill_supervisor", NAN),
        ("silent", NAN), ("exit", NAN),
    ],
)  # fmt: skip
def test_an_attack_costs_its_own_item(act, value):
    with Worker(deadline=3.0, workers=2) as worker:
        acts = ["good"] * 4 + [act] + ["good"] * 5
        values = worker.score(acts, [query("attack")] * 10)
        np.testing.assert_array_equal(values, [1] * 4 + [value] + [1] * 5)
        again = worker.score(["good"] * 3, [query("attack")] * 3)
        np.testing.assert_array_equal(again, [1] * 3)


def test_items_that_were_begun_twice_are_lost_once():
    """What a dead scorer left is begun again, and then its supervisor dies."""
    acts = ["exit", "good", "kill_supervisor", "good", "good"]
    with Worker(deadline=3.0, workers=1) as worker:
        values = worker.score(acts, [query("attack")] * 5)
    np.testing.assert_array_equal(values, [NAN, 1, NAN, 1, 1])


def test_a_stopped_supervisor_is_given_up(monkeypatch):
    monkeypatch.setattr(link, "SILENCE", 2.0)
    with Worker(deadline=20.0, workers=1) as worker:
        acts = ["good", "stop_supervisor", "good"]
        values = worker.score(acts, [query("attack")] * 3)
    np.testing.assert_array_equal(values, [1, NAN, 1])


def test_a_supervisor_killed_from_outside_costs_nothing():
    with Worker(deadline=30.0, workers=2) as worker:
        asked = Query(
            id="q", prompt="", reference="", verifier="tests.rewards.misbehaviour:slow"
        )
        worker.check([Query(id="q", prompt="", reference="0", verifier=asked.verifier)])
        pid = worker._link.pid
        threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
        np.testing.assert_array_equal(
            worker.score(["0.2"] * 12, [asked] * 12), [1] * 12
        )
        assert worker._link.pid != pid and not worker.problems


@pytest.mark.parametrize("act", ["leave", "murder"])
def test_detached_processes_are_ended(act, tmp_path):
    with Worker(deadline=3.0, workers=1) as worker:
        worker.score([act], [query("daemon", str(tmp_path))])
    left = [int(path.name) for path in tmp_path.iterdir()]
    assert left
    due = time.monotonic() + 10
    # A killed process is still there for a moment.
    while any(reaping.state(pid) not in ("", "Z", "X") for pid in left):
        assert time.monotonic() < due, "it is still there"
        time.sleep(0.01)


def test_secrets_of_the_environment_are_not_passed_on(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("MY_FLAG", "1")
    names = ["HF_TOKEN", "MY_FLAG", "PATH"]
    with Worker(workers=1) as worker:
        values = worker.score(names, [query("variable")] * 3)
    np.testing.assert_array_equal(values, [0, 0, 1])
    with Worker(workers=1, environment=["MY_FLAG"]) as worker:
        values = worker.score(names, [query("variable")] * 3)
    np.testing.assert_array_equal(values, [0, 1, 1])


def test_ten_megabytes_are_scored():
    asked = Query(id="q", prompt="", reference="7", verifier="gsm8k")
    texts = ["é" * 5_000_000 + "\n#### 7", "1 " * 5_000_000, "#### 7"]
    with Worker(workers=1) as worker:
        np.testing.assert_array_equal(worker.score(texts, [asked] * 3), [1, 0, 1])


def test_a_request_to_stop_is_obeyed_while_a_verifier_hangs():
    asked = []

    def poll():
        asked.append(time.monotonic())
        if len(asked) > 5 and asked[-1] - asked[0] > 0.5:
            raise KeyboardInterrupt

    with Worker(deadline=100.0, workers=1, poll=poll) as worker:
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            worker.score(["silent"], [query("attack")])
        # The deadline is 100 s.
        assert time.monotonic() - begun < 50
