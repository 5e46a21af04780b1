"""Methods with an importance ratio per response."""

from sgpo_jax import losses
from sgpo_jax.methods.method import Method
from sgpo_jax.methods.sequence import (
    Gmpo,
    Luspo,
    SequenceClipped,
    SequenceClippedPerToken,
)


def gspo() -> Method:
    """Group sequence policy optimization: one ratio per response (arXiv:2507.18071).

    The ratio is the geometric mean of the tokens' ratios, clipped at 3e-4 and 4e-4;
    mean over responses; four updates per batch; no KL penalty.
    """
    return Method(
        objective=SequenceClipped(), aggregation=losses.PerSequence(), minibatches=4
    )


def gspo_token() -> Method:
    """GSPO-token: the ratio of the response, the gradient of each token (2507.18071).

    With one advantage per response it equals `gspo` in value and gradient; it is the
    form to take with advantages per token.
    """
    return gspo().replace(objective=SequenceClippedPerToken())


def luspo() -> Method:
    """Length-unbiased sequence policy optimization: LUSPO (arXiv:2602.05261).

    GSPO times the response's length: a token counts the same whatever the length of its
    response. Defaults of `gspo`; the formula is that of TRL's `luspo` loss.
    """
    return gspo().replace(objective=Luspo())


def gmpo() -> Method:
    """Geometric-mean policy optimization, clipping in log space (arXiv:2507.20673).

    Log-ratios of tokens clipped at 0.4 on either side; mean over responses; four
    updates per batch; no KL penalty.
    """
    return gspo().replace(objective=Gmpo())


METHODS = (
    gspo,
    gspo_token,
    luspo,
    gmpo,
)
