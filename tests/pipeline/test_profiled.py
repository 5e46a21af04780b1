"""Progress of profiling."""

from unittest import mock

from sgpo_jax import models
from sgpo_jax.pipeline import Display, profiled
from sgpo_jax.profiling import Profile
from sgpo_jax.session import Session


def test_the_success_shown_is_that_of_all_chunks(monkeypatch):
    """Questions come by level: the last chunk alone may be the hardest."""
    chunks = [
        Profile(ids=(name,), samples=[8], successes=[solved])
        for name, solved in (("easy", 8), ("hard", 0))
    ]

    def measure(*_, on_chunk, **__):
        for number, chunk in enumerate(chunks, start=1):
            on_chunk(number, 2, chunk)
        return chunks[0]

    shown = []
    display, session = mock.Mock(spec=Display), mock.Mock(spec=Session)
    display.progress.return_value.__enter__ = lambda _: lambda *said: shown.append(said)
    display.progress.return_value.__exit__ = lambda *_: None
    session.initial_rollouts, session.worker = mock.Mock(), mock.Mock(solved_at=1.0)
    monkeypatch.setattr(profiled, "measure_by", measure)
    monkeypatch.setattr(profiled, "made_from", lambda *_: {})
    profiled.measured(
        session,
        mock.Mock(spec=models.Policy, params=None),
        [],
        samples=8,
        chunks=mock.Mock(spec=profiled.Chunks),
        display=display,
    )
    assert shown == [(1, "success 1.000"), (2, "success 0.500")]
