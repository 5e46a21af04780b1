"""The command line: `sgpo run`, and each of its stages by itself.

Exit codes are a contract with launchers, spelled out in `HELP`.
"""

import contextlib
import difflib
import errno
import importlib
import logging
import os
import pathlib
import select
import signal
import sys
import textwrap
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import sgpo_jax
from sgpo_jax.commands import options
from sgpo_jax.presets import PRESETS

# Everything else is imported where it is used: help and typos are answered at once.
if TYPE_CHECKING:
    from sgpo_jax.config import Experiment
    from sgpo_jax.hosts import ProcessGroup
    from sgpo_jax.pipeline import Display, Run
    from sgpo_jax.rewards import Worker

HELP = """\
usage: sgpo COMMAND [--preset NAME] [--OPTION VALUE ...]

Difficulty-aware reinforcement learning from verifiable rewards.

commands, in the order `run` does them; each works on the run folder --out:
  run       everything below, then a table and a report
  sft       make the initial policy by supervised fine-tuning (cached)
  profile   sample every training question a few times; count successes
  plan      filter questions, allocate group sizes, order them into a curriculum
  train     train each method from the same initial policy
  eval      held-out accuracy of the initial and the trained policies
  report    write report.md, its figures, and report.html, one page; --open shows it

profiles and plans without a run, for training elsewhere:
  profile --import FILE    a profile of a column of pass rates
  profile --server URL     sample by an inference server; no weights here
  profile --export FORMAT  pass rates and group sizes for TRL, verl, prime-rl, datasets
  profile --drift LATER    test whether the difficulty order has changed since
  profile --predict DATA   success of new questions from hidden states, unsampled
  plan --profile FILE      plan and its cost, without model and data; --compare

other commands:
  methods   the algorithms that can be trained: paper, parts, needs
  sample    print completions of a prompt, with the log-probability of every token
  export    write a policy of a run as a Hugging Face folder (--policy NAME --to FOLDER)
  sweep     search hyper-parameters of a method: trials at equal total compute
  doctor    check devices, versions, flags and folders, with remedies
  aot       compile ahead of time for a TPU pod, without one: memory, collectives

common options:
  --out FOLDER      the run folder (default runs/default); finished stages
                    are skipped, a killed run resumes from its checkpoint
  --data SOURCE     where questions come from (default procedural); see below
  --methods NAME..  what is trained, the baseline first: names of `sgpo methods`, or
                    package.module:function of your own; parts are set by
                    --methods.NAME.PART.FIELD VALUE
  --sampler.server URL  inference servers that sample the profile, and with
                    --sampler.refresh everything
  --seed N          root of all randomness
  --preset NAME     a complete experiment to start from (without: default, or with
                    --data none): {presets}
  --dry-run         print the resolved experiment and its predicted cost; do nothing
  --help            after a command: every option with its default
  --version         of the package, in place of a command

exit codes, for launchers (what to run again is the same command):
  0         done
  1         a fault of the program, a run that diverged, a disk that is full: look at it
  2         a usage error: running it again does not help
  3         train.stop-on-collapse: training made the policy much worse than it was
  42        run it again: SIGTERM arrived and the work so far is saved, or another
            process of the run was lost, hangs or never started (a message names it)
  130       Ctrl-C; the work so far is saved (a second Ctrl-C does not wait for that)
  141       the reader of its output has ended, as in `sgpo methods | head`
  134, 137  killed by jax, because process 0 of many was, or from outside: run it again

many processes (one per host of a TPU slice, all with the same folder --out):
  --distributed.coordinator auto                      from GKE, TPU VM or Slurm
  --distributed.coordinator HOST:PORT --distributed.processes N --distributed.process I

sources:
{sources}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        code = run_command(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except KeyboardInterrupt:  # before a run has begun, which has its own way to stop
        print("sgpo: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        # What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)


def _reader_is_gone() -> bool:
    """True if standard output is a pipe whose reader, such as `head`, has ended."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def run_command(argv: list[str]) -> int:
    """Run one command and return its exit code."""
    if argv and argv[0] == "--version":
        print(f"sgpo_jax {sgpo_jax.__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help", "help"):
        from sgpo_jax.data import SYNTAX

        sources = textwrap.indent(SYNTAX, "  ")
        print(HELP.format(presets=", ".join(PRESETS), sources=sources), end="")
        return 0
    name, rest = argv[0], argv[1:]
    try:
        code = _beside_runs(name, rest)
    except ValueError as error:
        return _refuse(str(error))
    if code is not None:
        return code
    if name in MACHINE_COMMANDS:
        return importlib.import_module(f"sgpo_jax.commands.{name}").main(rest)
    if name not in STAGES:
        close = difflib.get_close_matches(name, (*STAGES, *MACHINE_COMMANDS), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        return _refuse(f"unknown command {name!r}; {hint}see sgpo --help")
    try:
        dry_run = options.take_flag(rest, "--dry-run")
        shown = name == "report" and options.take_flag(rest, "--open")
        config = options.experiment(name, rest)
    except ValueError as error:
        return _refuse(str(error))
    code = _execute(name, config, dry_run)
    if shown and code == 0 and not dry_run:
        from sgpo_jax.report import open_page

        open_page(pathlib.Path(config.out).expanduser() / "report.html")
    return code


def _beside_runs(name: str, rest: list[str]) -> int | None:
    """Plan, profile, report without a run: return the exit code, None for a stage."""
    if name not in ("plan", "profile", "report"):
        return None
    given = set(options.given_options(rest))
    if name == "plan":
        from sgpo_jax.commands import plan

        return plan.main(rest) if "profile" in given else None
    if name == "report":
        from sgpo_jax.commands import report_profile

        alone = "help" not in given and report_profile.holds_profile_only(rest)
        return report_profile.main(rest) if alone else None
    kinds = sorted(given & {"drift", "export", "import", "predict", "server"})
    if len(kinds) > 1:
        return _refuse(f"choose one of --{' and --'.join(kinds)}")
    if not kinds:
        return None
    from sgpo_jax.commands import profile

    return profile.main(kinds[0], rest)


def _execute(name: str, config: "Experiment", dry_run: bool) -> int:
    from sgpo_jax.hosts import work_on
    from sgpo_jax.session import cache_programs

    quiet_libraries()
    cache_programs(config.cache)
    return work_on(
        config.distributed, lambda hosts: _work(name, config, hosts, dry_run)
    )


def _work(name: str, config: "Experiment", hosts: "ProcessGroup", dry_run: bool) -> int:
    from sgpo_jax.commands.stages import do
    from sgpo_jax.pipeline import Display, RunFolder, UserError, open_run
    from sgpo_jax.pipeline.predict import print_prediction
    from sgpo_jax.session import make_worker

    display = Display(quiet=hosts.index > 0)
    try:
        # What can fail on bad settings comes first; later errors are faults.
        worker = make_worker(config.reward, hosts.poll)
        folder = RunFolder.of(config)
        if name in ("plan", "eval", "report") and not folder.config.exists():
            raise UserError(
                f"{folder.path} holds no run: look at --out, or begin with sgpo run"
            )
        worker.load_functions(folder.rewards)
        run = open_run(config, worker, hosts=hosts, display=display)
        run.check()
        if name in ("eval", "report") and not run.held_out:
            raise UserError(f"sgpo {name} evaluates: split.held_out must not be 0")
        if dry_run:
            _check_folder(run, write=False)
    except (UserError, ValueError) as error:
        return _refuse(str(error))
    _introduce(run)
    if dry_run:
        print_prediction(run)
        return 0
    try:
        with worker, contextlib.ExitStack() as held:
            if refused := _lock(folder.path, hosts, held):
                return _refuse(refused)
            _begin(name, run, worker)
            held.callback(lambda: display.problems(worker.problems))
            do(name, run)
    except KeyboardInterrupt:
        display.say("interrupted; the same command resumes")
        return 130
    except Exception as error:
        code = _explain(error, display)
        if code is None:
            raise
        return code
    return 0


def _check_folder(run: "Run", *, write: bool) -> None:
    """Check that the folder holds results of these settings and questions, or none."""
    from sgpo_jax.pipeline import open_folder
    from sgpo_jax.pipeline.manifest import check_questions
    from sgpo_jax.pipeline.profiled import saved_profile

    check_questions(run.folder, run.train, run.held_out)
    if run.needs_profile and run.folder.profile.exists():
        saved_profile(run)  # one from elsewhere may not fit
    open_folder(run.config, write=write)


def _begin(name: str, run: "Run", worker: "Worker") -> None:
    """Check verifiers and the folder, and remember the questions."""
    import jax

    from sgpo_jax.pipeline.manifest import record_questions

    if name in ("run", "profile", "train", "eval"):
        worker.check((*run.train, *run.held_out))
    _check_folder(run, write=run.hosts.index == 0)
    run.hosts.on_main_process(
        lambda: record_questions(run.folder, run.train, run.held_out)
    )
    run.display.say(
        f"sgpo {name}: {run.folder.path}, {len(run.train)} training and"
        f" {len(run.held_out)} held-out questions, {jax.device_count()}"
        f" {jax.devices()[0].platform} device(s)"
    )


def _introduce(run: "Run") -> None:
    """Print problems of the data, and whether a published model is fine-tuned."""
    for problem in run.questions.problems[:10]:
        run.display.say(f"data: {problem}")
    config = run.config
    source = config.model.source.replace("{out}", str(config.out))
    if source and not config.sft.steps:
        run.display.say(
            f"model: {source} as it is, without supervised fine-tuning"
            " (--sft.steps N fine-tunes it on demonstrations first)"
        )
    if config.sampler.server:
        what = "everything, given the weights before"
        if not config.sampler.refreshed:
            what = "the profile and the initial policy's evaluation; training samples"
            what += " here (--sampler.refresh gives servers new weights)"
        run.display.say(f"sampler: {config.sampler.server} samples {what}")


def _lock(
    folder: pathlib.Path, hosts: "ProcessGroup", held: contextlib.ExitStack
) -> str:
    """Lock the run folder, by process 0; return the problem, "" if none."""
    from sgpo_jax.hosts import FolderInUseError, folder_lock

    refused = ""
    if hosts.index == 0:
        try:
            held.enter_context(folder_lock(folder))
        except FolderInUseError as error:
            refused = str(error)
        except OSError as error:
            refused = f"cannot write the run folder {folder}: {error.strerror}; choose"
            refused += " another --out"
    return hosts.broadcast(refused)


def _explain(error: Exception, display: "Display") -> int | None:
    """Print in a line why a run ended; return its exit code, None for a fault."""
    from sgpo_jax.artefacts import DamagedError
    from sgpo_jax.hosts import RESTART, LostPeer, Stopped
    from sgpo_jax.pipeline import UserError
    from sgpo_jax.rewards import UnscorableError, VerifierError
    from sgpo_jax.sampling import IncompleteError, RefreshError
    from sgpo_jax.training import CheckpointError, CollapseError

    code, text = None, str(error)
    if isinstance(error, UserError | VerifierError | DamagedError):
        return _refuse(text)
    if isinstance(error, Stopped):
        display.say(f"stopped by {text}; the same command resumes")
        return 130 if text == "SIGINT" else RESTART
    if isinstance(error, LostPeer):
        code, text = RESTART, f"{text}; the same command resumes"
    elif isinstance(error, CollapseError):
        code = 3
    elif isinstance(error, IncompleteError | RefreshError):
        code = 1
        text += "; the same command resumes"
    elif isinstance(error, FloatingPointError | CheckpointError | UnscorableError):
        code = 1
    elif isinstance(error, OSError) and error.errno in _DISK:
        code = 1
        text += ". What was saved before is untouched; make room or make it writable,"
        text += " and run the same command again"
    if code is not None:
        print(f"sgpo: {text}", file=sys.stderr)
    return code


def quiet_libraries() -> None:
    """Leave out tracebacks of libraries about what is raised as well."""
    logging.getLogger("absl").addFilter(_without_traceback)
    threading.excepthook = _thread_ended


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """Print in a line that a library's thread could not write to the disk.

    Orbax raises what its threads could not write again, where it is waited for.
    """
    error = ended.exc_value
    if type(ended.thread).__module__.startswith("orbax"):
        return
    if isinstance(error, OSError) and error.errno in _DISK:
        print(f"sgpo: a file could not be written: {error}", file=sys.stderr)
    else:
        threading.__excepthook__(ended)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Shorten what Orbax logs when it cannot write, and then raises as well."""
    record.exc_info = record.exc_text = None
    return True


# What a disk or a file system may refuse, through no fault of the program.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
_DISK += (errno.EPERM, errno.EIO)


def _refuse(message: str) -> int:
    print(f"sgpo: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


MACHINE_COMMANDS = ("doctor", "aot", "sample", "methods", "export", "sweep")
STAGES = ("run", "sft", "profile", "plan", "train", "eval", "report")
