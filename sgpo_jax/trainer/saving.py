"""Run folders of trainers: written by a notebook, resumed by `sgpo run`, and back."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import cloudpickle

from sgpo_jax import data, methods, models, training
from sgpo_jax.config import (
    EvalConfig,
    Experiment,
    LogConfig,
    ModelConfig,
    ProfileConfig,
    PromptConfig,
    SftConfig,
    SplitConfig,
)
from sgpo_jax.hosts import FolderInUseError, folder_lock
from sgpo_jax.models import pretrained
from sgpo_jax.pipeline import RunFolder, UserError, open_folder, open_run
from sgpo_jax.pipeline import saved as saved_policies
from sgpo_jax.pipeline.folder import METHOD_CODE, read_experiment
from sgpo_jax.pipeline.initial import fingerprint, initial_policy
from sgpo_jax.pipeline.manifest import record_questions
from sgpo_jax.pipeline.methods import identity, topology
from sgpo_jax.pipeline.run import HERE
from sgpo_jax.planning import Plan
from sgpo_jax.profiling import Profile
from sgpo_jax.trainer import front

if TYPE_CHECKING:
    from sgpo_jax.trainer.trainer import Trainer

QUESTIONS = "queries.jsonl"


def save(trainer: "Trainer", folder: str | pathlib.Path) -> None:
    """Write a trainer as a run folder, which `sgpo run --out FOLDER` resumes.

    Raises:
      ValueError: if the folder holds another run, or something cannot be written.
    """
    path = pathlib.Path(folder).expanduser()
    try:
        with folder_lock(path):
            _save(trainer, path)
    except FolderInUseError as error:
        raise ValueError(str(error)) from error


def _check(trainer: "Trainer", path: pathlib.Path, policy: str) -> None:
    """Refuse a folder of another run before anything in it is touched."""
    files, queries = RunFolder(path), path / QUESTIONS
    if not files.config.exists():
        return
    other = f"{path} holds another run: {{}}; save into another folder"
    if not queries.exists():
        raise ValueError(other.format("one that the command line began"))
    there = data.Saved(path=str(queries)).load()
    if (there.queries, there.held_out) != (trainer.queries, trainer.held_out):
        raise ValueError(other.format(f"its {QUESTIONS} has other questions"))
    if files.policy.exists():
        with contextlib.closing(training.Checkpoints(files.policy)) as saved:
            found = saved.plain(0)["fingerprint"]
        if found != policy:
            raise ValueError(other.format(f"its initial policy is {found}"))
    place = files.method(trainer.label) / "checkpoints"
    if place.exists():
        with contextlib.closing(training.Checkpoints(place)) as kept:
            step = kept.latest() or 0
        if step > trainer.step:
            raise ValueError(
                f"{path} holds step {step} of {trainer.label}, this trainer is at"
                f" {trainer.step}: Trainer.open goes on there, or save into another"
                " folder"
            )


def _save(trainer: "Trainer", path: pathlib.Path) -> None:
    files = RunFolder(path)
    params = trainer.initial.on(trainer.session.mesh).params
    policy = fingerprint(params)
    _check(trainer, path, policy)
    data.save_queries(path / QUESTIONS, trainer.queries, trainer.held_out)
    config = experiment(trainer, path)
    try:
        open_folder(config)
    except UserError as error:
        raise ValueError(str(error)) from error
    record_questions(files, trainer.queries, trainer.held_out)
    trainer.worker.save_functions(files.rewards)
    with contextlib.closing(training.Checkpoints(files.policy, keep=1)) as saved:
        if saved.latest() is None:
            note = {"fingerprint": policy, "cost": {}, "losses": []}
            saved.save(0, params, note)
    if trainer.profile is not None:
        trainer.profile.save(files.profile)
    if trainer.plan is not None:
        files.plans.mkdir(exist_ok=True)
        trainer.plan.save(files.plan(trainer.label))
    place = files.method(trainer.label)
    place.mkdir(parents=True, exist_ok=True)
    if not _importable(trainer.method):
        methods.remember_sources(trainer.method)
        (place / METHOD_CODE).write_bytes(cloudpickle.dumps(trainer.method))
    learner = trainer.learner
    with contextlib.closing(training.Checkpoints(place / "checkpoints")) as kept:
        store = training.ProgressStore(
            kept,
            trainer.progress,
            identity(learner, policy),
            topology(trainer.session),
            start=trainer.step,
        )
        store.save(trainer.step, trainer.progress)
    if trainer.kept.count:
        trainer.kept.save(files.completions(trainer.label), trainer.step)
    lines = ({"step": step, **metrics} for step, metrics in trainer.log.lines)
    (place / "metrics.jsonl").write_text(training.sealed_lines(lines))


def experiment(trainer: "Trainer", path: pathlib.Path) -> Experiment:
    """Return the settings under which the command line does what the trainer does."""
    return Experiment(
        out=str(path),
        seed=trainer.seed,
        data=f"saved:{HERE}/{QUESTIONS}",
        split=SplitConfig(held_out=float(len(trainer.held_out) > 0), demonstrated=0.0),
        model=_model(trainer.initial, path, trainer.queries),
        sft=SftConfig(steps=0),
        sampler=trainer.sampler,
        reward=trainer.scoring,
        profile=ProfileConfig(samples=trainer.profile_samples),
        pack=trainer.session.pack,
        methods={trainer.label: trainer.method},
        train=dataclasses.replace(
            trainer.config, steps=max(trainer.config.steps, trainer.step)
        ),
        eval=EvalConfig(samples=trainer.eval_samples, exact=trainer.eval_exact),
        mesh=trainer.session.mesh_shape,
        log=LogConfig(completions=trainer.kept.count),
    )


def _model(
    policy: models.Policy, path: pathlib.Path, queries: tuple[data.Query, ...]
) -> ModelConfig:
    """Return where the policy's shape and tokenizer are found again."""
    source = policy.source
    if not source:
        models.save(policy, path / "model")
        source = f"hf:{HERE}/model"
    shape = policy.config
    common: dict[str, Any] = {
        "source": source,
        "dtype": shape.dtype,
        "param_dtype": shape.param_dtype,
        "remat": shape.remat,
    }
    if shape.lora is not None:
        if shape.lora.targets != models.Lora().targets:
            raise ValueError(
                "the command line makes adapters of all matrices, and this policy has"
                f" some of {', '.join(shape.lora.targets)} only: save it with"
                " models.save instead"
            )
        common |= {"lora_rank": shape.lora.rank, "lora_alpha": shape.lora.alpha}
        common |= {"rslora": shape.lora.rslora}
    found = pretrained.open_source(source.replace(HERE, str(path))).tokenizer()
    turns = [query.turns for query in queries[:100]]
    wanted = [policy.tokenizer.encode_prompt(turn) for turn in turns]
    system = getattr(policy.tokenizer, "system", "")
    for prompt in (PromptConfig(system=system), PromptConfig(chat=False)):
        tokenizer = found.prompted(chat=prompt.chat, system=prompt.system)
        if [tokenizer.encode_prompt(turn) for turn in turns] == wanted:
            return ModelConfig(prompt=prompt, **common)
    raise ValueError(
        "the command line cannot write prompts as this policy's tokenizer does (a"
        " template or variables of its own): save the policy with models.save instead"
    )


def _importable(method: methods.Method) -> bool:
    """Return whether other processes find the method's functions by their names."""
    content = methods.to_json(method)
    if "__main__" in json.dumps(content):
        return False
    try:
        return methods.to_json(methods.from_json(content)) == content
    except ValueError:
        return False


@contextlib.contextmanager
def exclusive(path: pathlib.Path) -> Iterator[None]:
    """Keep a run folder to oneself while a trainer is made of it.

    Raises:
      ValueError: if another process works on it.
    """
    try:
        with saved_policies.exclusive(path):
            yield
    except UserError as error:
        raise ValueError(str(error)) from error


def read(path: pathlib.Path, label: str | None, show: bool) -> dict[str, Any]:
    """Return the arguments of the trainer that a run folder holds, and its state.

    Raises:
      ValueError: if there is no such run or method.
    """
    files = RunFolder(path)
    try:
        config = read_experiment(path)
    except UserError as error:
        raise ValueError(str(error)) from error
    if label is None and len(config.methods) > 1:
        raise ValueError(
            f"{path} has several methods, {', '.join(config.methods)}: name one, as in"
            f" Trainer.open({str(path)!r}, {next(iter(config.methods))!r})"
        )
    label = label or next(iter(config.methods))
    if label not in config.methods:
        raise ValueError(
            f"{path} has no method {label!r}; it has {', '.join(config.methods)}"
        )
    if not files.policy.exists():
        raise ValueError(f"{path} has no initial policy yet: sgpo run --out {path}")
    try:
        run = open_run(config, front.make_worker(config.reward))
        policy = initial_policy(run)
        known = None
        if "profile" in config.methods[label].needs and files.profile.exists():
            known = Profile.load(files.profile)
        plan = Plan.load(files.plan(label)) if files.plan(label).exists() else None
        return {
            "policy": policy,
            "method": config.methods[label],
            "queries": run.train,
            "held_out": run.held_out,
            "rollouts": config.train.rollouts,
            "max_response": config.sampler.max_response,
            "total_steps": config.train.steps,
            "eval_every": config.train.eval_every,
            "eval_samples": config.eval.samples,
            "eval_exact": config.eval.exact,
            "seed": config.seed,
            "profile": known or config.profile.samples,
            "plan": plan,
            "sampler": config.sampler,
            "pack": config.pack,
            "mesh": config.mesh,
            "scoring": config.reward,
            "completions": config.log.completions,
            "label": label,
            "show": show,
        }
    except UserError as error:
        raise ValueError(str(error)) from error


def restore(trainer: "Trainer", path: pathlib.Path) -> None:
    """Bring a trainer to where the newest checkpoint of its folder is, if any."""
    place = RunFolder(path).method(trainer.label)
    if not (place / "checkpoints").exists():
        return
    params = trainer.initial.on(trainer.session.mesh).params
    with contextlib.closing(training.Checkpoints(place / "checkpoints")) as kept:
        store = training.ProgressStore(
            kept,
            trainer.progress,
            identity(trainer.learner, fingerprint(params)),
            topology(trainer.session),
        )
        trainer.step, found = store.restore()
    if trainer.kept.count:
        trainer.kept.load(RunFolder(path).completions(trainer.label))
        trainer.kept.rewind(trainer.step)
    lines = training.read_metrics(place / "metrics.jsonl", sound=True)
    if found.pending is not None and len(lines) > found.logged:
        # The checkpoint of a step is written before its evaluation, which is there.
        found.record(trainer.step, lines[found.logged])
    lines = lines[: found.logged]
    trainer.resume(found, [(line.pop("step"), line) for line in lines])
