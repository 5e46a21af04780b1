"""Exact success rates by teacher forcing, where the verifier is equality."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from sgpo_jax import ledger, models, packing
from sgpo_jax.data import Query
from sgpo_jax.training.scores import log_probs


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceScorer:
    r"""Probability that a policy samples exactly the reference answer of a question.

    .. math:: p(x) = \exp \Big( \sum_t \log \pi(y_t \mid x, y_{<t}) \Big),
              \quad y = \text{reference} + \text{EOS}

    Where a completion is right if and only if it equals the reference, this is the
    success rate at the sampling temperature, without sampling error, for one forward
    pass. A reference as long as the longest response needs no EOS: it is cut there.
    The questions are tokenized and packed once, the program is compiled once per shape.

    Attributes:
      queries: the questions; all with the verifier "exact".
      config: shape of the policy.
      tokenizer: of characters, none of them white space: each text has one spelling.
      buckets: shapes of packed rows.
      max_response: longest response of the sampler, in tokens.
      temperature: of sampling.
      mesh: devices to run on; None for one.

    Raises:
      ValueError: if a right completion need not be the reference token by token.
    """

    queries: Sequence[Query]
    config: models.DecoderConfig
    tokenizer: models.Tokenizer
    buckets: packing.Buckets
    max_response: int
    temperature: float = 1.0
    mesh: Mesh | None = None

    def __post_init__(self):
        check_exact(self.queries, self.tokenizer)

    @functools.cached_property
    def groups(self) -> list[packing.Group]:
        """One prompt with its reference each; none for references that cannot fit."""
        eos = self.tokenizer.eos_id
        references = [
            [*self.tokenizer.encode(query.reference), eos] for query in self.queries
        ]
        return [
            packing.Group(
                prompt=self.tokenizer.encode_prompt(query.turns),
                responses=[reference[: self.max_response]],
                ids=[row],
            )
            for row, (query, reference) in enumerate(
                zip(self.queries, references, strict=True)
            )
            if len(reference) <= self.max_response + 1
        ]

    @functools.cached_property
    def packed(self) -> list[packing.Packed]:
        """The questions in rows."""
        return packing.pack(self.groups, self.buckets)

    @functools.cached_property
    def _program(self):
        def score(params: models.Params, packed: packing.Packed) -> jax.Array:
            scored = log_probs(
                params,
                self.config,
                packed,
                temperature=self.temperature,
                mesh=self.mesh,
            )
            return scored.log_prob.sum(axis=1)

        return jax.jit(score)

    def __call__(self, params: models.Params) -> np.ndarray:
        """Return the success rate of each question, [Q] in float64."""
        log_prob = np.full(len(self.queries), -np.inf)
        for packed in self.packed:
            scores = np.asarray(self._program(params, packed), np.float64)
            slot = np.asarray(packed.response)
            log_prob[slot[slot >= 0]] = scores[slot >= 0]
        return np.exp(np.minimum(log_prob, 0.0))

    @functools.cached_property
    def cost(self) -> ledger.Entry:
        """Compute of one call: a forward pass, nothing sampled."""
        lengths = [(len(g.prompt), len(g.responses[0])) for g in self.groups]
        tokens = sum(p + k for p, k in lengths)
        return ledger.Entry(
            flops=ledger.forward_flops(
                self.config,
                tokens=tokens,
                pairs=sum(ledger.packed_pairs(p, [k]) for p, k in lengths),
                logits=sum(k for _, k in lengths),
            ),
            tokens=tokens,
        )


def check_exact(queries: Sequence[Query], tokenizer: models.Tokenizer) -> None:
    """Refuse questions whose success rate is not the reference's probability.

    Raises:
      ValueError: naming the verifier or the tokenizer that is in the way.
    """
    others = sorted({query.verifier for query in queries} - {"exact"})
    if others:
        raise ValueError(
            "success is the probability of the reference only where the verifier is"
            f" 'exact'; these questions use {', '.join(map(repr, others))}: sample"
            " instead, with training.evaluate or without eval.exact"
        )
    if not isinstance(tokenizer, models.CharTokenizer) or any(
        character.isspace() for character in tokenizer.alphabet
    ):
        raise ValueError(
            f"a {type(tokenizer).__name__} can spell a right answer in several ways, of"
            " which the reference is one: sample instead, with training.evaluate or"
            " without eval.exact"
        )
