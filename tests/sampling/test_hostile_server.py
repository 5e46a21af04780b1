"""A short soak against a server that answers wrongly in every way we know."""

import pathlib

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("hang", [False, True], ids=["at once", "until a timeout"])
def test_a_short_soak(hang, monkeypatch):
    """What only a timeout ends has a short one, the rest one that load cannot reach."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import hostile_server

    kinds = hostile_server.ANSWERS.items()
    answers = {k: v for k, v in kinds if (k in hostile_server.UNTIL_TIMEOUT) == hang}
    count, timeout = (20, 0.5) if hang else (160, 60.0)
    found = hostile_server.soak(count, timeout=timeout, answers=answers)
    assert not found.wrong
    assert found.had + sum(found.counts.values()) == found.answers == count
    assert (found.had > 0) != hang
    assert len(found.drawn) == 4 if hang else len(found.counts) > 8
