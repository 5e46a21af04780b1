"""A server that lies, drips, floods and hangs costs the samples it spoils, no more."""

import pathlib

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def test_a_short_soak(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import hostile_server

    found = hostile_server.soak(160, timeout=2.0)
    assert not found.wrong
    assert found.had > 0
    assert len(found.counts) > 8
    assert found.had + sum(found.counts.values()) == found.answers == 160
