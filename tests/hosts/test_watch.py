"""Who is lost, from what processes say about themselves; with a clock in hand."""

import threading

import jax
import pytest

from sgpo_jax.hosts.watch import LEAVING, Beat, HeartbeatWatch, Peers

pytestmark = pytest.mark.slow

HEARTBEAT, PATIENCE = 10.0, 60.0


class Clock:
    """Processes that beat every 2 s unless they are silent."""

    def __init__(self, index=0, count=3):
        self.now = 0.0
        self.peers = Peers(
            index,
            count,
            heartbeat=HEARTBEAT,
            stall_timeout=PATIENCE,
            clock=lambda: self.now,
        )
        self.beats = {i: Beat(0, f"host-{i}", barriers_passed=0) for i in range(count)}
        self.moving = True

    def run(self, seconds, *, silent=(), deaf=False):
        """Return the first complaint and when it came."""
        end = self.now + seconds
        while self.now < end:
            self.now += 2.0
            for i, beat in self.beats.items():
                if i not in silent:
                    number = beat.number + 1
                    self.beats[i] = Beat(
                        number, beat.name, beat.barriers_passed, beat.left
                    )
            if not deaf:
                self.peers.update(dict(self.beats))
            if self.moving:
                self.peers.mark_progress()
            problem = self.peers.lost()
            if problem:
                return problem, self.now
        return None


def test_nobody_is_lost_while_all_beat():
    assert Clock().run(10 * HEARTBEAT) is None


def test_a_silent_process_is_named_after_the_heartbeat_and_not_before():
    clock = Clock()
    assert clock.run(20) is None
    problem, when = clock.run(60, silent={2})
    assert problem.startswith("process 2 (host-2) has given no sign of life")
    assert HEARTBEAT < when - 20 <= HEARTBEAT + 2


def test_a_coordinator_that_does_not_answer_is_named():
    clock = Clock(index=1)
    assert clock.run(20) is None
    problem, when = clock.run(60, deaf=True)
    assert "process 0 (host-0), which coordinates, is silent" in problem
    assert HEARTBEAT < when - 20 <= HEARTBEAT + 2


def test_who_hears_nothing_judges_nobody():
    clock = Clock(index=1)
    assert clock.run(20) is None
    assert clock.run(6, silent={2}) is None
    problem, _ = clock.run(60, silent={2}, deaf=True)
    assert "process 0 (host-0)" in problem


def test_time_in_which_this_process_stood_still_does_not_count():
    clock = Clock()
    assert clock.run(20) is None
    clock.now += 10 * HEARTBEAT  # stopped and continued; the others went on
    assert clock.peers.lost() is None, "before it could listen"
    assert clock.run(20) is None
    assert clock.run(60, silent={1}) is not None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1, "process 1 (host-1) ended with code 1"),
        (2, "process 1 (host-1) ended with code 2"),
        (0, None),
    ],
)
def test_a_process_that_said_goodbye(code, expected):
    clock = Clock()
    assert clock.run(20) is None
    clock.beats[1] = Beat(99, "host-1", 0, left=code)
    found = clock.run(60, silent={1})
    assert (found[0] if found else None) == expected
    if found:
        assert found[1] == 22.0, "at once"


def test_who_stopped_in_order_is_lost_only_if_the_others_do_not_stop():
    clock = Clock()
    clock.beats[1] = Beat(1, "host-1", 0, left=42)
    problem, when = clock.run(60, silent={1})
    assert "process 1" in problem
    assert when > HEARTBEAT


def test_a_process_that_reaches_no_safe_place_says_whom_it_waits_for():
    clock = Clock()
    clock.beats[0] = Beat(1, "host-0", barriers_passed=7)
    clock.beats[1] = Beat(1, "host-1", barriers_passed=7)
    clock.beats[2] = Beat(1, "host-2", barriers_passed=6)
    clock.moving = False
    problem, when = clock.run(2 * PATIENCE)
    assert "this process is stuck" in problem
    assert problem.endswith("waiting for process 2")
    assert PATIENCE < when <= PATIENCE + 2


class Shared:
    """A key-value store for threads of one process."""

    def __init__(self):
        self.values, self.broken = {}, False

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        if self.broken:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE")
        self.values[key] = value

    def key_value_dir_get(self, key):
        return [(k, v) for k, v in self.values.items() if k.startswith(key)]


def start(store, index, ended, heartbeat=0.5):
    peers = Peers(index, 2, heartbeat=heartbeat, stall_timeout=PATIENCE)
    return HeartbeatWatch(
        store,
        peers,
        index=index,
        name=f"host-{index}",
        interval=heartbeat / 5,
        end=lambda problem: (ended.append(problem), done.set()),
    )


done = threading.Event()


@pytest.mark.parametrize("how", ["fault", "coordinator"])
def test_the_threads_end_a_process_whose_peer_is_lost(how):
    done.clear()
    store, ended = Shared(), []
    watch = start(store, 0 if how == "fault" else 1, ended)
    other = start(store, 1, []) if how == "fault" else None
    if other is not None:
        other.close(1)
    else:
        store.broken = True
    assert done.wait(10)
    assert ("ended with code 1" if how == "fault" else "which coordinates") in ended[0]
    watch.close(0)


def test_the_coordinator_leaves_last():
    store = Shared()
    first, second = start(store, 0, []), start(store, 1, [])
    closer = threading.Thread(target=first.close, args=(42,))
    closer.start()
    closer.join(0.5)
    assert closer.is_alive(), "process 0 left before the other"
    second.close(42)
    closer.join(LEAVING / 2)
    assert closer.is_alive(), "the other has said that it ends, and is about to"
    closer.join(LEAVING + 2)
    assert not closer.is_alive()
