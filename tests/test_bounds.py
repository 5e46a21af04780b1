"""Every numeric setting is refused where it is made, or demonstrably fine."""

import copy
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sgpo_jax
from sgpo_jax import advantages, bounds, methods, models, planning, sampling
from sgpo_jax.config import Experiment
from sgpo_jax.methods import ZOO
from sgpo_jax.models import DecoderConfig, Lora, rope
from sgpo_jax.planning import allocators, curricula, filters
from sgpo_jax.profiling import Profile, adaptive

HOSTILE = [math.nan, math.inf, -math.inf, -1, -0.5, 0, 10**400, 1e300, True, "7", None]
HOSTILE += [np.float32("nan"), np.True_, 5e-324, 2**63, 0.5, [1], b"1"]


def parts_of(value):
    """A dataclass and all dataclasses inside it."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        if isinstance(value, dict | tuple | list):
            items = value.values() if isinstance(value, dict) else value
            for item in items:
                yield from parts_of(item)
        return
    yield value
    for field in dataclasses.fields(value):
        yield from parts_of(getattr(value, field.name))


def every_part():
    """One instance of every settings dataclass there is, by type."""
    found = {}
    roots = [Experiment(), *(make() for make in ZOO.values())]
    for table in (planning.FILTERS, planning.ALLOCATORS, planning.CURRICULA):
        roots += table.values()
    roots += [
        planning.Setting(model=DecoderConfig(vocab_size=5, lora=Lora())),
        planning.Baseline(),
        filters.SignalRange(),
        curricula.RandomOrder(),
        allocators.Neyman(),
        adaptive.Flat(),
        adaptive.Sequential(),
        sampling.Temperature(),
        sampling.TopK(3),
        sampling.TopP(0.5),
        sampling.MinP(0.1),
        rope.LinearScaling(factor=2.0),
        rope.Llama3Scaling(factor=2.0),
        rope.YarnScaling(factor=2.0, original_context=64),
        advantages.KalmanTracker(),
        advantages.AdaptiveBetaTracker(),
        methods.GroupAdam(),
        methods.GroupAdagrad(),
    ]
    # Every part of the package that can be made without arguments, in the zoo or not.
    for name in dir(methods):
        kind = getattr(methods, name)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            try:
                roots.append(kind())
            except TypeError:
                continue
    for part in (part for root in roots for part in parts_of(root)):
        found.setdefault(type(part), part)
    return found


PARTS = every_part()
NUMBERS = [
    (kind, field.name)
    for kind, part in PARTS.items()
    for field in dataclasses.fields(part)
    if field.init and bounds.number_of(field.type) is not None
]


def remade(kind, name, value):
    """A part with another value, checked as when it is made.

    Under pytest every annotation is checked first, which users have not.
    """
    part = copy.copy(PARTS[kind])
    object.__setattr__(part, name, value)
    part.__post_init__()
    return part


def names(case):
    return f"{case[0].__name__}.{case[1]}"


def test_the_walk_finds_what_there_is():
    assert len(PARTS) > 80
    assert len(NUMBERS) > 150
    assert {"learning_rate", "temperature", "deadline", "group_size", "coef"} <= {
        name for _, name in NUMBERS
    }


# Derived or measured, no settings.
EXEMPT = {"BetaMixture", "Posterior", "Profile"}


def is_fine(value, number):
    """Whether a value is one that arithmetic of a run stays finite with."""
    values = value if number.many else [value]
    if value is None:
        return number.optional
    return all(
        not isinstance(x, bool | np.bool_ | str | bytes)
        and math.isfinite(x)
        and abs(x) < 2**63
        # What must not be 0 is not 0 for float32 either.
        and (number.range.holds(0) or np.float32(x) != 0)
        and (not number.whole or x == int(x))
        for x in values
    )


@given(
    case=st.sampled_from(NUMBERS),
    value=st.sampled_from(HOSTILE) | st.integers() | st.floats(),
)
@settings(max_examples=600)
def test_a_hostile_number_is_refused_in_a_line_that_names_it(case, value):
    kind, name = case
    (field,) = [x for x in dataclasses.fields(kind) if x.name == name]
    number = bounds.number_of(field.type)
    given_value = (value,) if number.many else value
    try:
        remade(kind, name, given_value)
    except ValueError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
        return
    assert is_fine(given_value, number), f"{names(case)} = {value!r} was let in"


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.__name__)
def test_what_is_no_number_is_always_refused(kind):
    for name in (name for owner, name in NUMBERS if owner is kind):
        (field,) = [x for x in dataclasses.fields(kind) if x.name == name]
        number = bounds.number_of(field.type)
        assert number.range or kind.__name__ in EXEMPT, f"{name} says no range"
        for value in (math.nan, math.inf, -math.inf, True, np.True_, "7"):
            with pytest.raises(ValueError, match=name):
                remade(kind, name, (value,) if number.many else value)


HOSTILE_OPTIONS = [
    ("--sampler.temperature", "nan"),
    ("--reward.deadline", "nan"),
    ("--train.rollouts", "99999999999999999999"),
    ("--mesh.fsdp", "-4"),
    ("--seed", "-1"),
    ("--methods.sgpo.optimizer.learning-rate", "nan"),
    ("--methods.sgpo.prompts.allocate.maximum", "1000000000"),
    ("--methods.sgpo.kl.coef", "nan"),
]


@pytest.mark.parametrize("option", HOSTILE_OPTIONS, ids=" ".join)
def test_the_command_line_names_option_and_value(option, tmp_path, capsys):
    from sgpo_jax import cli

    out = tmp_path / "run"
    assert cli.run_command(["run", "--out", str(out), *option]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    assert option[0].replace("-", "_")[2:] in said.replace("-", "_")
    assert not out.exists()


@pytest.fixture(scope="module")
def policy():
    return models.load("tiny:layers=1,width=32")


QUESTIONS = [{"prompt": f"{n}+1=", "answer": n + 1} for n in range(4)]


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        ("profile", "samples"),
        ("profile", "max_response"),
        ("profile", "temperature"),
        ("profile", "seed"),
        ("plan", "rollouts"),
        ("plan", "seed"),
        ("trainer", "rollouts"),
        ("trainer", "max_response"),
        ("trainer", "total_steps"),
        ("trainer", "eval_every"),
        ("trainer", "eval_samples"),
        ("trainer", "profile"),
        ("trainer", "seed"),
    ],
)
def test_the_front_door_refuses_before_anything_is_made(call, argument, policy):
    known = Profile(ids=("a", "b"), samples=[8, 8], successes=[4, 1])
    named = {"profile": "samples", "total_steps": "steps"}.get(argument, argument)
    values = [math.nan, -1.0] if argument == "temperature" else [-1, True, 2**64]
    for value in values:
        with pytest.raises(ValueError, match=named):
            if call == "profile":
                sgpo_jax.profile(policy, QUESTIONS, **{argument: value})
            elif call == "plan":
                sgpo_jax.plan(known, **{argument: value})
            else:
                sgpo_jax.Trainer(policy, "grpo", QUESTIONS, **{argument: value})
