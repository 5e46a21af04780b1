"""Rewards from verifiers that run in killable processes."""

from typing import TYPE_CHECKING, Any

from .names import BUILT_IN as BUILT_IN
from .names import SYNTAX as SYNTAX
from .names import terms as terms
from .problems import SOLVED as SOLVED
from .problems import Problem as Problem
from .problems import Problems as Problems
from .problems import UnscorableError as UnscorableError
from .problems import VerifierError as VerifierError
from .sources import sources as sources
from .verifiers import choice as choice
from .verifiers import exact as exact
from .verifiers import final_number as final_number
from .verifiers import gsm8k as gsm8k
from .verifiers import integer as integer
from .verifiers import numeric as numeric

if TYPE_CHECKING:
    from .batch import RewardBatch as RewardBatch
    from .hacking import ALARM as ALARM
    from .hacking import SIGNS as SIGNS
    from .hacking import HackingSigns as HackingSigns
    from .hacking import watch as watch
    from .references import check_references as check_references
    from .references import reference_problem as reference_problem
    from .worker import Scorer as Scorer
    from .worker import Worker as Worker

_OF_THE_TRAINER = {
    "RewardBatch": "batch",
    "Scorer": "worker",
    "Worker": "worker",
    "ALARM": "hacking",
    "SIGNS": "hacking",
    "HackingSigns": "hacking",
    "watch": "hacking",
    "check_references": "references",
    "reference_problem": "references",
}


def __getattr__(name: str) -> Any:
    # The scoring processes import this package and are forked often: no numpy there.
    if name in _OF_THE_TRAINER:
        import importlib

        module = importlib.import_module(f"{__name__}.{_OF_THE_TRAINER[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
