"""Description of a run, for a reader who did not make it."""

import dataclasses
import inspect
import platform

import jax

import sgpo_jax
from sgpo_jax.methods import ZOO, Method
from sgpo_jax.pipeline import Run
from sgpo_jax.report.sections import Tabular, Text
from sgpo_jax.report.tables import TextTable


def about(run: Run) -> list[Tabular | Text]:
    """Policy, questions and methods of a run, and how to read its figures."""
    config = run.config
    many = len(config.methods) > 1
    rows = [[label, described(label, made)] for label, made in config.methods.items()]
    return [
        Text(
            f"sgpo_jax {sgpo_jax.__version__}, jax {jax.__version__}, Python"
            f" {platform.python_version()}, {jax.device_count()}"
            f" {jax.devices()[0].platform} device(s). Data `{config.data}`, seed"
            f" {config.seed}: {len(run.train)} training and {len(run.held_out)}"
            " held-out questions, none in both."
        ),
        Text(
            f"{'Each method starts' if many else 'The method starts'} from the same"
            f" initial policy and trains for {config.train.steps} steps of"
            f" {config.train.rollouts} rollouts. A success is a reward of at least"
            f" {config.reward.solved_at:g}; held-out success is the share of successes"
            f" on the held-out questions at temperature {config.sampler.temperature:g},"
            " with a 95 % interval over questions; that of a gain is over the same"
            " questions before and after. A group is the rollouts of one"
            " question in a step; it has no signal if it gives no advantage, as when"
            " its rewards are equal. Compute is operations on real tokens, profiling"
            " included."
        ),
        Tabular(TextTable("Methods", ["method", "what it is"], rows, labels=2)),
    ]


def described(label: str, method: Method) -> str:
    """First line of a method's docstring, and the parts that are not the named ones.

    >>> from sgpo_jax import methods
    >>> described("grpo", methods.named("grpo"))
    'Group Relative Policy Optimization (arXiv:2402.03300), as published.'
    >>> described("mine", methods.Method())
    'A method that has no name in this library.'
    """
    if label not in ZOO:
        return "A method that has no name in this library."
    first = (inspect.getdoc(ZOO[label]) or "").partition("\n")[0]
    named = ZOO[label]()
    changed = [
        field.name
        for field in dataclasses.fields(method)
        if getattr(method, field.name) != getattr(named, field.name)
    ]
    return f"{first} Set otherwise: {', '.join(changed)}." if changed else first
