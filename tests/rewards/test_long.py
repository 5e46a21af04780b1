"""A completion of ten megabytes costs neither gigabytes nor the batch it is in."""

import resource

import pytest

from sgpo_jax.data import Query
from sgpo_jax.rewards import Worker

LONG = {
    "text": "7 " * 5_000_000,
    "digits": "9" * 10_000_000,
    "brackets": "(" * 10_000_000,
    "breaks": "\n" * 10_000_000,
}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("verifier", ["exact", "integer", "gsm8k", "choice"])
def test_a_long_completion_is_scored_or_named_and_the_others_are_paid(verifier):
    with Worker(deadline=20.0, workers=1) as worker:
        reference = "B" if verifier == "choice" else "7"
        query = Query(id="q", prompt="?", reference=reference, verifier=verifier)
        good = f"#### {reference}" if verifier == "gsm8k" else reference
        assert worker.score([good], [query]).tolist() == [1.0]
        before = peak()
        texts = [good, *LONG.values(), good]
        rewards = worker.score(texts, [query] * len(texts))
        assert rewards[0] == rewards[-1] == 1.0
        assert not (rewards[1:-1] == 1.0).all()
        # 40 MB of completions and their copies on the way, not their square.
        assert peak() - before < 600
