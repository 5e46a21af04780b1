"""Signal, estimation error and cost, before a run. NumPy and SciPy only."""

from .beliefs import BetaMixture as BetaMixture
from .beliefs import beta_nodes as beta_nodes
from .beliefs import fit_prior as fit_prior
from .cost import break_even_passes as break_even_passes
from .cost import compute_ratio as compute_ratio
from .cost import prefix_sharing_ratio as prefix_sharing_ratio
from .cost import rollouts_per_pass as rollouts_per_pass
from .estimation import TRIVIAL as TRIVIAL
from .estimation import UNSOLVED as UNSOLVED
from .estimation import bucket_probabilities as bucket_probabilities
from .estimation import misbucketing as misbucketing
from .estimation import pass_at_k as pass_at_k
from .estimation import posterior_mean as posterior_mean
from .estimation import posterior_std as posterior_std
from .estimation import power_of_two_size as power_of_two_size
from .signal import best_group_size as best_group_size
from .signal import binomial as binomial
from .signal import expected_centered as expected_centered
from .signal import expected_mixed as expected_mixed
from .signal import expected_standardized as expected_standardized
from .signal import mixed_per_cost as mixed_per_cost
from .signal import probability_any_success as probability_any_success
from .signal import probability_mixed as probability_mixed
from .signal import smallest_group_size as smallest_group_size
from .signal import success_advantage as success_advantage
