"""Methods that change how the importance ratio of a token enters the loss."""

from sgpo_jax import losses
from sgpo_jax.methods.method import Method
from sgpo_jax.methods.surrogate import Cispo, Dppo, Sapo


def cispo() -> Method:
    """Truncated weights instead of clipping: CISPO (arXiv:2506.13585).

    No token loses its gradient; weights are at most 5, the default of TRL; token mean.
    Groups of 8 where the paper samples 16.
    """
    return Method(objective=Cispo(), minibatches=4)


def sapo() -> Method:
    """Soft adaptive policy optimization, a smooth gate for clipping (arXiv:2511.20347).

    Temperatures 1.0 for positive and 1.05 for other advantages; mean per response, then
    over responses; four updates per batch.
    """
    return Method(objective=Sapo(), aggregation=losses.PerSequence(), minibatches=4)


def dppo() -> Method:
    """Trust region in probability against the sampler: DPPO-TV (arXiv:2602.04879).

    A token stops counting once its probability has moved by more than 0.2 in favour of
    its advantage; 1e-3 times the squared log-ratio on all tokens; token mean; four
    updates per batch.
    """
    return Method(objective=Dppo(), minibatches=4)


METHODS = (
    cispo,
    sapo,
    dppo,
)
