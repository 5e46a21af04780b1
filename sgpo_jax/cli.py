"""The command line: `sgpo run`, and each of its stages by itself.

Exit codes are a contract with launchers, spelled out in `HELP`.
"""

import importlib
import os
import pathlib
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sgpo_jax.commands import options
from sgpo_jax.presets import PRESETS

# Everything else is imported where it is used: help and typos are answered at once.
if TYPE_CHECKING:
    from sgpo_jax.config import Experiment
    from sgpo_jax.hosts import Hosts

HELP = """\
usage: sgpo COMMAND [--preset NAME] [--OPTION VALUE ...]

Difficulty-aware reinforcement learning from verifiable rewards.

commands, in the order `run` does them; each works on the run folder --out:
  run       everything below, then a table and a report
  warmup    make the initial policy by supervised fine-tuning (cached)
  profile   sample every training question a few times; count successes
  plan      decide what to train on, with which group sizes, in which order
  train     train each method from the same initial policy
  eval      held-out accuracy of the initial and the trained policies
  report    write report.md and its figures

commands beside a run:
  sample    print completions of a prompt, with the log-probability of every token
  doctor    devices, versions, flags, folders; what is wrong and what to do about it
  aot       compile a run's programs for a TPU pod, without one: memory, collectives

common options:
  --out FOLDER      the run folder (default runs/default); a stage that is there is
                    not done again, and a killed run goes on where it was
  --data SOURCE     where questions come from (default procedural); see below
  --seed N          root of all randomness
  --preset NAME     a complete experiment to start from: {presets}
  --dry-run         print the resolved experiment and its predicted cost; do nothing
  --help            after a command: every option with its default

exit codes, for launchers (what to run again is the same command):
  0         done
  1         a fault of the program, a run that diverged, a disk that is full: look at it
  2         a mistake in what was asked for: running it again does not help
  42        run it again: SIGTERM arrived and the work so far is saved, or another
            process of the run was lost
  130       Ctrl-C; the work so far is saved (a second Ctrl-C does not wait for that)
  134, 137  killed by jax, because a process was lost or never came, or from outside:
            run it again

many processes (one per host of a TPU slice, all with the same folder --out):
  --distributed.coordinator auto                      as GKE, TPU VM or Slurm say
  --distributed.coordinator HOST:PORT --distributed.processes N --distributed.process I

sources:
{sources}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run_command(list(sys.argv[1:] if argv is None else argv)))


def run_command(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        from sgpo_jax.data import SYNTAX

        sources = textwrap.indent(SYNTAX, "  ")
        print(HELP.format(presets=", ".join(PRESETS), sources=sources), end="")
        return 0
    name, rest = argv[0], argv[1:]
    if name in MACHINE_COMMANDS:
        return importlib.import_module(f"sgpo_jax.commands.{name}").main(rest)
    if name not in COMMANDS:
        return _refuse(f"unknown command {name!r}; see sgpo --help")
    try:
        dry_run = options.take_flag(rest, "--dry-run")
        config = options.experiment(name, rest)
    except ValueError as error:
        return _refuse(str(error))
    return _execute(name, config, dry_run)


def _execute(name: str, config: "Experiment", dry_run: bool) -> int:
    from sgpo_jax import hosts as processes

    _cache_programs(config)
    signals = processes.Signals()
    hosts = processes.connect(config.distributed, signals)
    # After that, since jax.distributed catches SIGTERM too.
    with signals:
        if hosts.count == 1:
            return _work(name, config, hosts, dry_run)
        try:
            code = _work(name, config, hosts, dry_run)
        except Exception as error:
            traceback.print_exc()
            code = 1
            if processes.is_lost_peer(error):
                print(
                    f"sgpo: a collective failed, {hosts.suspects()}; the same command"
                    " goes on from the last checkpoint",
                    file=sys.stderr,
                )
                code = processes.RESTART
        hosts.close(code)
        if code:
            # jax would wait at exit for processes that may be gone.
            sys.stderr.flush()
            os._exit(code)
        return code


def _work(name: str, config: "Experiment", hosts: "Hosts", dry_run: bool) -> int:
    import jax

    from sgpo_jax import rewards
    from sgpo_jax.hosts import RESTART, LostPeer, Stopped
    from sgpo_jax.pipeline import Display, Setup, UserError, open_folder
    from sgpo_jax.pipeline.predict import print_prediction
    from sgpo_jax.training import CheckpointError

    display = Display(quiet=hosts.index > 0)
    try:
        # What can fail on bad settings comes first; later errors are faults.
        worker = rewards.Worker(
            deadline=config.reward.deadline,
            memory_gib=config.reward.memory_gib,
            poll=hosts.poll,
        )
        setup = Setup(config=config, worker=worker, hosts=hosts)
        setup.check()
    except (UserError, ValueError) as error:
        return _refuse(str(error))
    for problem in setup.questions.problems[:10]:
        display.say(f"data: {problem}")
    if dry_run:
        print_prediction(setup, display)
        return 0
    try:
        with worker:
            folder = open_folder(config, write=hosts.index == 0)
            display.say(
                f"sgpo {name}: {folder.path}, {len(setup.train)} training and"
                f" {len(setup.held_out)} held-out questions, {jax.device_count()}"
                f" {jax.devices()[0].platform} device(s)"
            )
            COMMANDS[name](setup, folder, display)
            display.problems(worker.problems)
    except UserError as error:
        return _refuse(str(error))
    except (FloatingPointError, CheckpointError) as error:
        print(f"sgpo: {error}", file=sys.stderr)
        return 1
    except LostPeer as error:
        print(f"sgpo: {error}; the same command goes on from here", file=sys.stderr)
        return RESTART
    except Stopped as stopped:
        display.say(f"stopped by {stopped}; the same command goes on from here")
        return 130 if str(stopped) == "SIGINT" else RESTART
    except KeyboardInterrupt:
        display.say("interrupted; the same command goes on from here")
        return 130
    return 0


def _cache_programs(config: "Experiment") -> None:
    """Keep compiled programs between processes, unless the user has a cache already."""
    import jax

    if config.cache and not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        path = pathlib.Path(config.cache).expanduser() / "programs"
        jax.config.update("jax_compilation_cache_dir", str(path))


def _refuse(message: str) -> int:
    print(f"sgpo: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _warmup(setup, folder, display) -> None:
    from sgpo_jax.pipeline import stages

    stages.warmup(setup, folder, display)


def _profile(setup, folder, display) -> None:
    from sgpo_jax import report
    from sgpo_jax.pipeline import stages

    result = stages.profile(setup, folder, display)
    report.print_profile(result, setup.train, display)


def _plan(setup, folder, display) -> None:
    from sgpo_jax import report
    from sgpo_jax.pipeline import stages

    result = stages.plan(setup, folder, display)
    report.print_plan(result, display)


def _train(setup, folder, display) -> None:
    from sgpo_jax.pipeline import stages

    for name in setup.config.method.names:
        stages.train(name, setup, folder, display)


def _eval(setup, folder, display) -> None:
    from sgpo_jax import report
    from sgpo_jax.pipeline import stages

    results = stages.evaluate(setup.config.method.names, setup, folder, display)
    report.print_evaluations(results, display)


def _report(setup, folder, display) -> None:
    from sgpo_jax import report

    report.write(setup, folder, display)


def _run(setup, folder, display) -> None:
    _warmup(setup, folder, display)
    _profile(setup, folder, display)
    _plan(setup, folder, display)
    _train(setup, folder, display)
    _eval(setup, folder, display)
    _report(setup, folder, display)


MACHINE_COMMANDS = ("doctor", "aot", "sample")

COMMANDS: dict[str, Callable[..., None]] = {
    "run": _run,
    "warmup": _warmup,
    "profile": _profile,
    "plan": _plan,
    "train": _train,
    "eval": _eval,
    "report": _report,
}
