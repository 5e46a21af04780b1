"""Predictions: what training by a plan costs, before it is started."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from sgpo_jax import ledger, theory
from sgpo_jax.bounds import GroupSize, NonNegative, Positive, Range, Size, bounded
from sgpo_jax.models import DecoderConfig
from sgpo_jax.planning.plan import Plan
from sgpo_jax.profiling import Fitted, Posterior, Prior, Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Setting:
    """Assumptions about training behind a prediction.

    Attributes:
      rollouts: rollouts per step.
      passes: passes over each phase.
      drop_dead: leave groups with equal rewards out of the training pass.
      training: cost of training on a response relative to generating it, if there is
        no `model`; old log-probabilities, forward and backward.
      model: shape of the policy; FLOPs and memory are predicted only with it.
      row_length: tokens per packed row of the training step, 0 for the longest group.
      rows: rows per micro-batch.
      slots: responses decoded at once.
    """

    rollouts: Annotated[int, Range(1, 10**7)] = 256
    passes: Positive = 1.0
    drop_dead: bool = True
    training: NonNegative = 4.0
    model: DecoderConfig | None = None
    row_length: Annotated[int, Range(0, 2**20)] = 0
    rows: Size = 8
    slots: Size = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Predicted cost of a phase, over all its passes.

    Attributes:
      queries: queries in it.
      rollouts: responses of one pass.
      steps: training steps of all passes.
      dead: share of groups with equal rewards.
      tokens: response tokens generated.
      units: compute, in generations of a rollout.
      flops: floating-point operations; None without a model or lengths.
      shapes: distinct packed row shapes, so training programs compiled.
      padding: share of padding in training rows.
      memory: largest bytes at once, of sampling or training; None without a model.
    """

    queries: int
    rollouts: int
    steps: int
    dead: float
    tokens: float
    units: float
    flops: float | None
    shapes: int
    padding: float
    memory: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted cost of a plan, phase by phase, and against a baseline.

    Attributes:
      phases: cost of each phase.
      profile: compute of the profile, in units.
      baseline: name of the baseline.
      baseline_units: compute of the baseline for as many passes.
      baseline_dead: its share of dead groups.
      visits: groups of the baseline per question that are planned: its passes.
      pays_after: visits per question after which the profile has paid for itself, by
        what it is compared with; None for never. See `pays_after`.
    """

    phases: tuple[Cost, ...]
    profile: float
    baseline: str
    baseline_units: float
    baseline_dead: float
    visits: float = 1.0
    pays_after: dict[str, float | None] = dataclasses.field(default_factory=dict)

    @property
    def rollouts(self) -> int:
        """Rollouts of one pass over all phases."""
        return sum(cost.rollouts for cost in self.phases)

    @property
    def units(self) -> float:
        """Compute in all, profile included, in generations of a rollout."""
        return self.profile + sum(cost.units for cost in self.phases)

    @property
    def dead(self) -> float:
        """Share of dead groups over all phases."""
        queries = sum(cost.queries for cost in self.phases)
        return sum(cost.dead * cost.queries for cost in self.phases) / queries

    @property
    def saving(self) -> float:
        """Compute of the baseline over that of the plan."""
        return self.baseline_units / self.units

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers."""
        content = dataclasses.asdict(self)
        return {**content, "phases": list(content["phases"])}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Prediction":
        """Return the prediction that `to_json` wrote."""
        phases = tuple(Cost(**cost) for cost in content["phases"])
        return cls(**{**content, "phases": phases})


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Baseline:
    """GRPO over every query with groups of one size, without a profile.

    >>> Baseline.parse("grpo,group=16")
    Baseline(group=16, drop_dead=False)
    """

    group: GroupSize = 8
    drop_dead: bool = False

    @property
    def name(self) -> str:
        """Name with its settings, as `parse` reads it."""
        kind = "grpo_nonzero" if self.drop_dead else "grpo"
        return f"{kind},group={self.group}"

    @classmethod
    def parse(cls, text: str) -> "Baseline":
        """Read `grpo,group=16` or `grpo_nonzero,group=8`.

        Raises:
          ValueError: if it is neither.
        """
        kind, *settings = text.split(",")
        group = "8"
        for setting in settings:
            name, _, group = setting.partition("=")
            if name != "group":
                raise ValueError(f"a baseline has the setting group=G, not {setting!r}")
        if kind not in ("grpo", "grpo_nonzero") or not group.isdigit() or group == "0":
            raise ValueError(
                f"a baseline is 'grpo,group=16' or 'grpo_nonzero,group=16', not"
                f" {text!r}"
            )
        return cls(group=int(group), drop_dead=kind == "grpo_nonzero")


def predict(
    plan: Plan,
    profile: Profile | Posterior,
    *,
    setting: Setting = Setting(),
    against: Baseline = Baseline(),
    prior: Prior = Fitted(),
) -> Prediction:
    """Predict rollouts, compute, dead groups, shapes and memory of a plan.

    Lengths are the profile's means by query. The policy is taken to stay as it is, so
    dead shares are those of the first pass. The ledger's unit is the generation of one
    rollout; profiling pays for generation only.

    Args:
      plan: whose phases are predicted.
      profile: it was made from, or its posterior.
      setting: of training.
      against: the baseline that is compared with.
      prior: of the posterior, if a profile is given.
    """
    belief = profile if isinstance(profile, Posterior) else Posterior.of(profile, prior)
    everything = np.flatnonzero(belief.profile.drawn > 0)
    phases = []
    for phase in plan.phases:
        rows = np.array([belief.profile.place[id_] for id_ in phase.ids], np.int64)
        phases.append(_cost(belief.rows(rows), np.array(phase.sizes), setting))
    plain = dataclasses.replace(setting, drop_dead=against.drop_dead)
    sizes = np.full(len(everything), against.group)
    baseline = _cost(belief.rows(everything), sizes, plain)
    return Prediction(
        phases=tuple(phases),
        profile=float(belief.profile.drawn.sum()),
        baseline=against.name,
        baseline_units=baseline.units,
        baseline_dead=baseline.dead,
        visits=setting.passes,
        pays_after=pays_after(plan, belief, setting=setting, group=against.group),
    )


VISITS = 1000.0
"""Visits per question up to which a profile may pay."""


def pays_after(
    plan: Plan, belief: Posterior, *, setting: Setting = Setting(), group: int = 8
) -> dict[str, float | None]:
    """Visits per question after which a profile has paid for what it cost.

    Groups of one size with and without the profile, at equal numbers of groups with
    signal: with it, those questions are drawn that the plan keeps; without it, all of
    them (`grpo` trains on every group, `grpo_nonzero` on those with signal) or by a
    belief that learns from training (`belief_thin`). The policy's successes are taken
    to stay, which favours the profile; `theory.drawn_from_profile` has the equations.

    Args:
      plan: whose questions are kept.
      belief: posterior of the profile it was made from.
      setting: what training costs.
      group: responses per group.

    Returns:
      Visits by name of what is compared with; None if not within 1,000.
    """
    profile = belief.profile
    everything = np.flatnonzero(profile.drawn > 0)
    ids = dict.fromkeys(id_ for phase in plan.phases for id_ in phase.ids)
    rows = np.array([profile.place[id_] for id_ in ids], np.int64)
    mixed, kept = (
        float(1 - part.dead(np.full(len(part), group)).mean())
        for part in (belief.rows(everything), belief.rows(rows))
    )
    length = float(np.nan_to_num(profile.mean_tokens[everything]).mean())
    prompt = float(profile.prompt_tokens[everything].mean()) / length if length else 0.0
    cost = theory.GroupCost(group_size=group, prompt=prompt, training=setting.training)
    visits = theory.visits_grid(VISITS)
    rate, share = _pool(belief.rows(everything))
    profiled = theory.drawn_from_profile(
        visits,
        mixed,
        kept,
        cost=cost,
        samples=float(profile.drawn[everything].mean()),
        drop_dead=setting.drop_dead,
    )
    found = {
        "grpo": theory.drawn_uniformly(visits, mixed, cost=cost, drop_dead=False),
        "grpo_nonzero": theory.drawn_uniformly(visits, mixed, cost=cost),
        "belief_thin": theory.drawn_by_belief(visits, rate, share, cost=cost),
    }
    after = {name: profiled.pays_after(other) for name, other in found.items()}
    return {name: v if math.isfinite(v) else None for name, v in after.items()}


def _pool(belief: Posterior) -> tuple[np.ndarray, np.ndarray]:
    """Success rates that stand for a pool, to three digits, and their shares."""
    queries = np.bincount(belief.index, minlength=len(belief.nodes[0]))
    rate, weight = belief.nodes
    share = queries[:, None] * weight / len(belief)
    distinct, place = np.unique(rate.round(3), return_inverse=True)
    return distinct, np.bincount(place.reshape(-1), share.reshape(-1))


def with_prediction(plan: Plan, prediction: Prediction) -> Plan:
    """Return the plan with its prediction as a part of the artefact."""
    return dataclasses.replace(plan, prediction=prediction.to_json())


def _cost(belief: Posterior, sizes: np.ndarray, setting: Setting) -> Cost:
    profile = belief.profile
    dead = belief.dead(sizes)
    length = np.nan_to_num(profile.mean_tokens)
    trained = np.where(setting.drop_dead, 1 - dead, 1.0)
    passes, rollouts = setting.passes, int(sizes.sum())
    units = passes * (sizes * (1 + setting.training * trained)).sum()
    shapes, padding = _rows(profile, sizes, trained, setting)
    flops = memory = None
    if setting.model is not None and length.any():
        flops = passes * _flops(profile.prompt_tokens, length, sizes, trained, setting)
        memory = _memory(profile, setting)
    return Cost(
        queries=len(belief),
        rollouts=rollouts,
        steps=math.ceil(passes * rollouts / setting.rollouts),
        dead=float(dead.mean()),
        tokens=float(passes * (sizes * length).sum()),
        units=float(units),
        flops=flops,
        shapes=shapes,
        padding=padding,
        memory=memory,
    )


def _flops(
    prompt: np.ndarray,
    length: np.ndarray,
    sizes: np.ndarray,
    trained: np.ndarray,
    setting: Setting,
) -> float:
    """Operations of one pass: the ledger's formulas, linear in sums over queries."""
    model = setting.model
    assert model is not None
    decode = sizes * ((length - 1) * prompt + (length - 1) * length / 2)
    once = prompt * (prompt + 1) / 2
    packed = once + sizes * (length * prompt + length * (length + 1) / 2)
    forward = ledger.forward_flops(
        model,
        tokens=_whole(prompt + sizes * (length - 1)),
        pairs=_whole(once + decode),
        logits=_whole(sizes * length),
    )
    backward = ledger.training_flops(
        model,
        tokens=_whole(trained * (prompt + sizes * length)),
        pairs=_whole(trained * packed),
        logits=_whole(trained * sizes * length),
    )
    return forward + backward


def _whole(values: np.ndarray) -> int:
    return round(float(values.sum()))


def _rows(
    profile: Profile, sizes: np.ndarray, trained: np.ndarray, setting: Setting
) -> tuple[int, float]:
    """Predict row shapes and padding: groups of a step, packed to whole rows.

    Groups fill rows to within half a group on average, and the last micro-batch of a
    step is padded to whole rows.
    """
    length = np.nan_to_num(profile.mean_tokens)
    group = profile.prompt_tokens + sizes * length
    if not group.any():
        return 0, 0.0
    row = setting.row_length or 1 << math.ceil(math.log2(max(group.max(), 2.0)))
    tokens = float((trained * group).sum())
    groups_a_step = max(1.0, setting.rollouts / sizes.mean())
    live = groups_a_step * float(trained.mean())
    mean = float(np.average(group, weights=np.maximum(trained, 1e-9)))
    wasted = min(mean / 2, row / 2) / row
    rows = max(live * mean / (row * (1 - wasted)), 1e-9)
    batches = math.ceil(rows / setting.rows)
    last = math.ceil(rows) - (batches - 1) * setting.rows
    shapes = 1 if last == setting.rows or batches == 1 else 2
    padding = 1 - live * mean / (math.ceil(rows) * row)
    return (shapes, padding) if tokens else (0, 0.0)


def _memory(profile: Profile, setting: Setting) -> int:
    """Largest bytes at once: state, plus keys and values or plus a micro-batch."""
    model = setting.model
    assert model is not None
    width = {"float32": 4, "bfloat16": 2}[model.dtype]
    matrices = ledger.matmul_parameters(model)
    parameters = matrices + model.vocab_size * model.embed_dim
    trained = ledger.adapter_parameters(model) or parameters
    stored = {"float32": 4, "bfloat16": 2}[model.param_dtype]
    state = parameters * stored + trained * (4 + 8)
    longest = int(profile.longest.max() or np.nan_to_num(profile.mean_tokens).max())
    positions = int(profile.prompt_tokens.max()) + longest
    kv = 2 * model.num_layers * model.num_kv_heads * model.head_dim * width
    sampling = setting.slots * positions * kv
    row = setting.row_length or positions
    kept = model.num_layers * (12 * model.embed_dim + 3 * model.mlp_dim) * width
    training = setting.rows * row * (kept + 4 * model.embed_dim)
    return int(state + max(sampling, training))
