"""The report of a run: tables, figures, and how much compute equal accuracy took."""

from sgpo_jax.report.curves import SHARES as SHARES
from sgpo_jax.report.curves import CostComparison as CostComparison
from sgpo_jax.report.curves import Curve as Curve
from sgpo_jax.report.curves import compare as compare
from sgpo_jax.report.profile_alone import write_profile as write_profile
from sgpo_jax.report.write import check as check
from sgpo_jax.report.write import open_page as open_page
from sgpo_jax.report.write import print_evaluations as print_evaluations
from sgpo_jax.report.write import print_plan as print_plan
from sgpo_jax.report.write import print_profile as print_profile
from sgpo_jax.report.write import write as write
