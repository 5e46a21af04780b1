"""Random streams of a run: every generator and key that its seed gives, in one place.

A run has one seed; what is random in it is drawn from a stream of its own, identified
by the words after the seed:

=================  ============================  =======================================
stream             words                         draws
=================  ============================  =======================================
`questions`        hash of the family, level     questions of the embedded mixture
`demonstrations`   0xDE50                        demonstrations of fine-tuning
`fine_tuning`      pass                          order of the demonstrations in a pass
`plan`             none                          which unsolved prompts a plan keeps
`passes`           phase, pass                   order of the prompts in a pass
`draw_seed`        sampling step, hashed         what a prompt sampler draws in a round
`subsample_seed`   step, 1, hashed               which responses a subsample keeps
`parameters`       none, a JAX key               a fresh policy, and new adapters
`sampling`         sampling step, query,         the Gumbel noise of a token
                   sample, token; a JAX key
`request_seed`     sampling step, query,         the seed that a server samples with
                   sample
`rehearsal`        step                          rewards that `sgpo aot` makes up
=================  ============================  =======================================

Held-out sets are drawn by a hash of seed and content (`data.split`), which is no
stream. A part of a method that is random gets a seed made here, and calls `generator`.

`plan`, pass 0 of `fine_tuning` and pass 0 of phase 0 of `passes` have one state, since
NumPy pads words with zeros, and so have later passes of `fine_tuning` and first passes
of later phases. They order different things, and a change would change every run.

No other module derives anything from a run's seed: a test looks for it.
"""

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax

PROFILE = 0
"""Sampling step of the profile."""

EVALUATION = 2**31 - 1
"""Sampling step of all evaluations: they differ by the policy alone."""

ROUNDS = 16
"""Most rounds of sampling in a step of training: draws, refills, continuations."""

_STEPS = 1 << 24


def sampling_step(step: int, round: int = 0) -> int:
    """Return the sampling step of a round of a step of training, unlike any other.

    Args:
      step: of training, from 1.
      round: of the step, from 0; after going back, from 16 times how often.

    Raises:
      ValueError: if there are too many.

    >>> sampling_step(3), sampling_step(3, 1)
    (3, 16777219)
    """
    number = step + (round << 24)
    if not 0 < step < _STEPS or not 0 <= number < EVALUATION:
        raise ValueError(
            f"step {step}, round {round}: there is noise for {_STEPS - 1} steps and 127"
            " rounds, going back included; lower train.steps or train.max_rollbacks"
        )
    return number


def rounds(step: int, rollbacks: int) -> Iterable[int]:
    """Sampling steps of a step's rounds; after going back they are new ones.

    >>> next(iter(rounds(5, 0))), next(iter(rounds(5, 1))) - (16 << 24)
    (5, 5)
    """
    return (sampling_step(step, n) for n in range(rollbacks * ROUNDS, 1 << 30))


def generator(*words: int) -> np.random.Generator:
    """Return the generator of a seed that a part was given, or of a stream's words."""
    return np.random.default_rng(words)


def hashed(*words: int) -> int:
    """Mix integers into one seed of 64 bits."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def questions(seed: int, family: str, level: int) -> np.random.Generator:
    """Stream of a family's questions of a level."""
    return generator(seed, zlib.crc32(family.encode()), level)


def demonstrations(seed: int) -> np.random.Generator:
    """Stream of the demonstrations that an initial policy is fine-tuned on."""
    return generator(seed, 0xDE50)


def fine_tuning(seed: int, epoch: int) -> np.random.Generator:
    """Stream of a pass over the demonstrations."""
    return generator(seed, epoch)


def plan(seed: int) -> np.random.Generator:
    """Stream of a plan's filter."""
    return generator(seed)


def passes(seed: int, phase: int = 0) -> tuple[int, ...]:
    """Words of the shuffled passes of a phase; the number of the pass is added."""
    return (seed, phase)


def cipher_keys(words: tuple[int, ...], count: int) -> np.ndarray:
    """Return keys of 64 bits: of the passes over more prompts than are shuffled."""
    return np.random.SeedSequence(words).generate_state(count, np.uint64)


def draw_seed(seed: int, number: int) -> int:
    """Seed of a prompt sampler's draw.

    Args:
      seed: of the run.
      number: the sampling step.
    """
    return hashed(seed, number)


def subsample_seed(seed: int, step: int, rollbacks: int) -> int:
    """Seed of the subsample of a step's responses."""
    return hashed(seed, step + (rollbacks << 28), 1)


def rehearsal(seed: int, step: int) -> np.random.Generator:
    """Stream of the made-up rewards and lengths of a step that is not sampled."""
    return generator(seed, step)


def request_seed(seed: int, step: int, query: int, sample: int) -> int:
    """Seed that a server is asked to sample with: below 2^31, as servers want.

    Args:
      seed: of the run.
      step: the sampling step.
      query: key of the query.
      sample: its index.
    """
    words = np.random.SeedSequence([seed, step, query, sample])
    return int(words.generate_state(1)[0]) >> 1


def parameters(seed: int) -> "jax.Array":
    """Key of the parameters of a fresh policy, or of fresh adapters."""
    import jax

    return jax.random.key(seed)


def sampling(seed: "int | jax.Array", step: "int | jax.Array") -> "jax.Array":
    """Key of a call of the sampler.

    Args:
      seed: of the run.
      step: the sampling step.
    """
    import jax

    return jax.random.fold_in(jax.random.key(seed), step)


def sample(base: "jax.Array", query: "jax.Array", index: "jax.Array") -> "jax.Array":
    """Key of a sample.

    Args:
      base: key of the call.
      query: key of the query.
      index: of the sample among those of its query.
    """
    import jax

    return jax.random.fold_in(jax.random.fold_in(base, query), index)


def token(sample: "jax.Array", age: "jax.Array") -> "jax.Array":
    """Key of the noise of a token.

    Args:
      sample: key of the sample.
      age: tokens of the response before it.
    """
    import jax

    return jax.random.fold_in(sample, age)
