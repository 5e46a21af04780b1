"""Distributed initialization: the process group of a run."""

import dataclasses
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Annotated

import jax

from sgpo_jax.bounds import Natural, Range, Size, bounded
from sgpo_jax.hosts.backends import start_backends
from sgpo_jax.hosts.multi_process import MultiProcess, is_lost_peer
from sgpo_jax.hosts.signals import RESTART, Signals
from sgpo_jax.hosts.single_process import ProcessGroup, SingleProcess
from sgpo_jax.hosts.watch import end_for_restart


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class DistributedConfig:
    """Settings of distributed initialization; none of them changes the results.

    Attributes:
      coordinator: HOST:PORT of process 0, the same on every process; "auto" takes
        all of it from the environment (GKE, TPU VM, Slurm); empty for one process.
      processes: number of processes.
      process: number of this process.
      heartbeat_timeout: seconds after which a silent process is taken for dead.
      barrier_timeout: timeout of every barrier in seconds; more than the longest
        compilation.
    """

    coordinator: str = ""
    processes: Size = 1
    process: Natural = 0
    heartbeat_timeout: Annotated[int, Range(1, 10**7)] = 100
    barrier_timeout: Annotated[int, Range(1, 10**7)] = 600

    def __post_init__(self):
        if not 0 <= self.process < self.processes:
            raise ValueError(
                f"process must be in 0..{self.processes - 1}, got"
                f" {self.process}; it counts from 0 below processes"
            )
        if self.processes > 1 and not self.coordinator:
            raise ValueError(
                f"processes={self.processes} needs coordinator,"
                " HOST:PORT of process 0 or auto"
            )
        if self.coordinator not in ("", "auto") and ":" not in self.coordinator:
            raise ValueError(
                f"coordinator must be HOST:PORT or auto, got {self.coordinator!r}"
            )


def connect(config: DistributedConfig, signals: Signals) -> ProcessGroup:
    """Initialize the process group; before anything touches a device.

    If not all processes connect within `barrier_timeout` seconds, all exit with 42.
    """
    if not config.coordinator:
        return SingleProcess(signals)
    explicit = {}
    where = "the coordinator of the environment"
    if config.coordinator != "auto":
        where = config.coordinator
        explicit = {
            "coordinator_address": config.coordinator,
            "num_processes": config.processes,
            "process_id": config.process,
        }
    # jax would abort with a stack of C++ frames, so it gets a little longer.
    problem = (
        f"not all processes reached {where} within {config.barrier_timeout} s: one that"
    )
    problem += (
        " does not report this itself never started, or cannot reach that address"
    )
    due = threading.Timer(config.barrier_timeout, end_for_restart, [problem])
    due.start()
    try:
        jax.distributed.initialize(
            **explicit,
            initialization_timeout=config.barrier_timeout + 60,
            # `HeartbeatWatch` is first, and names the lost process.
            heartbeat_timeout_seconds=2 * config.heartbeat_timeout + 10,
            shutdown_timeout_seconds=config.barrier_timeout,
        )
    finally:
        due.cancel()
    return MultiProcess(
        signals,
        heartbeat_timeout=config.heartbeat_timeout,
        barrier_timeout=config.barrier_timeout,
    )


def work_on(config: DistributedConfig, work: Callable[[ProcessGroup], int]) -> int:
    """Initialize the process group, call `work`, and return or exit with its code.

    Signals become `Stopped` while `work` runs. What a lost process does to the others'
    collectives is an error like many; it is recognized here, and named if silent.
    """
    signals = Signals()
    hosts = connect(config, signals)
    start_backends()
    # After that, since jax.distributed catches SIGTERM too.
    with signals:
        if hosts.count == 1:
            return work(hosts)
        try:
            code = work(hosts)
        except Exception as error:
            traceback.print_exc()
            code = 1
            if is_lost_peer(error):
                print(
                    f"sgpo: a collective failed, {hosts.diagnose()}; the same command"
                    " resumes from the last checkpoint",
                    file=sys.stderr,
                )
                code = RESTART
        hosts.close(code)
        if code:
            # jax would wait at exit for processes that may be gone.
            sys.stderr.flush()
            os._exit(code)
        return code
