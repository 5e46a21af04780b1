"""Rules by name: every field of every rule can be set, and mistakes are named."""

import dataclasses

import pytest

from sgpo_jax import planning

TABLES = {
    "filter": planning.FILTERS,
    "allocator": planning.ALLOCATORS,
    "curriculum": planning.CURRICULA,
    "prior": planning.PRIORS,
    "sampling rule": planning.SAMPLING_RULES,
}


@pytest.mark.parametrize("kind", TABLES)
def test_every_rule_comes_back_from_its_own_text(kind):
    for name, rule in TABLES[kind].items():
        text = name
        for field in dataclasses.fields(rule):
            value = getattr(rule, field.name)
            if dataclasses.is_dataclass(value):
                continue
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            if isinstance(value, tuple):
                shown = "+".join(map(str, value))
            text += f",{field.name}={shown}"
        assert planning.rule(text, TABLES[kind], kind=kind) == rule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no allocator ''; there are fixed"),
        ("fixed,size", "no setting 'size'; it has size=8"),
        ("fixed,size=2.5", "size must be like 8, got '2.5'"),
        ("fixed,size=0", "size must be a whole number from 1"),
        ("inverse,estimate=median", "estimate must be like rate"),
        ("best-advantage,sizes=2+x", "sizes must be like"),
        ("keep-all", "no allocator"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        planning.rule(text, planning.ALLOCATORS, kind="allocator")
