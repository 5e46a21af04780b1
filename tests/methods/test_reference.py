"""Gradient of one update against TRL's trainers and torch autograd, one tiny model.

Rollouts, rewards, advantages and the reference and old policies are the same on both
sides. Everything is float32: a gradient is a sum of some thousand products in another
order, and log-ratios are differences of log-probabilities near 3, so entries agree to
about 1e-4 of the largest entry of their matrix; ten times that is allowed.
"""

import dataclasses
import os
from typing import Any

import numpy as np
import pytest

from sgpo_jax import methods
from sgpo_jax.models import pretrained
from sgpo_jax.testing import ARITHMETIC, ScriptedRollouts
from sgpo_jax.training.collect import Collected, collected
from tests.methods.cases import (
    METHODS,
    QUERIES,
    advantage_of,
    batch_of,
    gradient,
    make_programs,
    reward_groups,
)

torch = pytest.importorskip("torch")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")
from sgpo_jax.models.pretrained.load import places  # noqa: E402 after the skip
from sgpo_jax.models.pretrained.save import publish  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
PROMPTS, SIZE, LONGEST = 3, 6, 4
# Far enough for some ratios to be clipped at 0.2, near enough for others not.
DISTANCE = {"now": 0.0, "reference": 0.05, "old": 0.03, "sampler": 0.2}

# Probabilities of the tiny model are near 1 / 13: a bound of 0.2 would cut none.
NEAR = {"dppo": METHODS["dppo"].replace(objective=methods.Dppo(bound=0.02))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One model on both sides, and rollouts as each of them wants them."""

    config: Any
    params: Any
    others: dict[str, Any]
    theirs: Any
    their_others: dict[str, Any]
    taken: Collected

    @property
    def rewards(self):
        return torch.tensor(self.taken.rewards, dtype=torch.float32)

    def padded(self):
        """Prompts padded on the left, completions on the right, and their masks."""
        prompts = [ARITHMETIC.encode_prompt(q.turns) for q in self.taken.queries]
        width = max(map(len, prompts))
        rows = [prompts[group] for group in self.taken.group]
        rollouts = self.taken.rollouts
        mask = np.arange(LONGEST) < rollouts.length[:, None]
        return {
            "prompt_ids": torch.tensor([[0] * (width - len(r)) + r for r in rows]),
            "prompt_mask": torch.tensor(
                [[0] * (width - len(r)) + [1] * len(r) for r in rows]
            ),
            "completion_ids": torch.tensor(rollouts.tokens.astype(np.int64)),
            "completion_mask": torch.tensor(mask.astype(np.int64)),
        }

    def log_probs(self, model):
        """Log-probability of each completion token, 0 where masked, [R, T]."""
        inputs = self.padded()
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions)
        found = logits.logits[:, :-1].log_softmax(-1)
        found = found.gather(2, ids[:, 1:, None])[:, -LONGEST:, 0]
        return torch.where(inputs["completion_mask"] > 0, found, 0)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=ARITHMETIC.vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=64,
    )

    def model(state):
        made = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation="eager"
        ).eval()
        made.load_state_dict(state)
        return made

    drawn = transformers.AutoModelForCausalLM.from_config(config).state_dict()
    state = {
        name: 0.4 * torch.randn(x.shape) + (0.6 if x.ndim == 1 else 0.0)
        for name, x in drawn.items()
    }
    states = {
        name: {k: x + scale * torch.randn(x.shape) for k, x in state.items()}
        for name, scale in DISTANCE.items()
    }
    theirs = {name: model(x) for name, x in states.items()}
    ours = {}
    for name, one in theirs.items():
        folder = tmp_path_factory.mktemp(name)
        one.save_pretrained(folder)
        one.config._name_or_path = str(folder)  # TRL loads its reference by it
        opened = pretrained.open_source(f"hf:{folder}")
        ours[name] = pretrained.load_params(opened.tensors, opened.config)
    queries = QUERIES[:PROMPTS]
    scored = ScriptedRollouts(unscorable=0.0)(None, queries, [SIZE] * PROMPTS, step=1)
    draw = methods.Draw(np.arange(PROMPTS), np.full(PROMPTS, SIZE))
    made = Case(
        config=opened.config,
        params=ours.pop("now"),
        others=ours,
        theirs=theirs.pop("now"),
        their_others=theirs,
        taken=collected(queries, draw, scored),
    )
    with torch.no_grad():
        drawn = made.log_probs(theirs["sampler"]).numpy()
    rollouts = dataclasses.replace(scored.rollouts, log_prob=drawn)
    scored = dataclasses.replace(scored, rollouts=rollouts)
    return dataclasses.replace(made, taken=collected(queries, draw, scored))


def our_gradient(case, name, *, on_policy=False):
    """Gradient of a named method by the names of transformers, and the advantages."""
    method = (METHODS | NEAR)[name].replace(minibatches=1, updates_per_batch=1)
    taken = case.taken
    advantage = advantage_of(method, taken)
    factor = method.subsample(advantage, reward_groups(method, taken), seed=0)
    found = gradient(
        make_programs(method.loss, method.optimizer, case.config),
        method,
        batch_of(method, taken, advantage=advantage, factor=factor),
        taken,
        log_z=0.1,
        params=case.params,
        reference=case.others["reference"],
        old=None if on_policy else case.others["old"],
    )
    return found, advantage


def assert_equal(case, ours, loss):
    """Compare with the gradient that torch finds for a loss."""
    case.theirs.zero_grad()
    loss.backward()
    theirs = {name: p.grad.numpy() for name, p in case.theirs.named_parameters()}
    assert max(np.abs(grad).max() for grad in theirs.values()) > 1e-4
    for path, group in places(case.config).items():
        grads = ours["layers"][path[1]] if len(path) == 2 else ours[path[0]][None]
        for place, grad in zip(group, np.asarray(grads), strict=True):
            expected = theirs[place.name]
            np.testing.assert_allclose(
                publish(place, grad),
                expected,
                atol=1e-3 * np.abs(expected).max() + 1e-7,
                err_msg=place.name,
            )


# What each trainer of TRL is told; clipping bounds and coefficients are our defaults.
TRL = {
    "grpo": {
        "loss_type": "grpo",
        "beta": 0.04,
        "epsilon": 0.2,
        # Its default multiplies the penalty by the ratio; published is without.
        "use_bias_correction_kl": False,
    },
    "dr_grpo": {"loss_type": "dr_grpo", "beta": 0.0, "epsilon": 0.2},
    "dapo": {"loss_type": "dapo", "beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.28},
    "gspo": {
        "loss_type": "grpo",
        "beta": 0.0,
        "epsilon": 3e-4,
        "epsilon_high": 4e-4,
        "importance_sampling_level": "sequence",
    },
    "luspo": {
        "loss_type": "luspo",
        "beta": 0.0,
        "epsilon": 3e-4,
        "epsilon_high": 4e-4,
        "importance_sampling_level": "sequence",
    },
    "cispo": {"loss_type": "cispo", "beta": 0.0, "epsilon_high": 5.0},
    "sapo": {"loss_type": "sapo", "beta": 0.0},
    "rloo": {"beta": 0.0},
}


def trl_trainer(name, model, folder):
    """The trainer of TRL, with nothing to download and nothing to train on."""
    trl = pytest.importorskip("trl")
    tokenizers = pytest.importorskip("tokenizers")
    datasets = pytest.importorskip("datasets")
    config, trainer = trl.GRPOConfig, trl.GRPOTrainer
    if name == "rloo":
        config, trainer = trl.RLOOConfig, trl.RLOOTrainer
    words = {str(i): i for i in range(ARITHMETIC.vocab_size)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(
            tokenizers.models.WordLevel(words, unk_token="0")
        ),
        pad_token="0",
        eos_token="1",
    )
    made = trainer(
        model=model,
        reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
        args=config(
            output_dir=str(folder),
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_dropout=True,
            per_device_train_batch_size=PROMPTS * SIZE,
            num_generations=SIZE,
            # Dr. GRPO divides by it; ours is Constant(1024).
            max_completion_length=1024,
            **TRL[name],
        ),
        train_dataset=datasets.Dataset.from_list([{"prompt": "1"}] * PROMPTS * SIZE),
        processing_class=tokenizer,
    )
    made.current_gradient_accumulation_steps = 1
    return made


@pytest.mark.parametrize("name", TRL)
def test_gradient_of_trl(case, name, tmp_path):
    on_policy = name == "rloo"  # published without a ratio
    ours, advantage = our_gradient(case, name, on_policy=on_policy)
    trainer = trl_trainer(name, case.theirs, tmp_path)
    inputs = case.padded()
    with torch.no_grad():
        old = case.log_probs(case.theirs if on_policy else case.their_others["old"])
        reference = case.log_probs(case.their_others["reference"])
    inputs |= {
        "advantages": torch.tensor(advantage),
        "old_per_token_logps": old,
        "old_logps": old.sum(1),
        "ref_per_token_logps": reference,
        "num_items_in_batch": inputs["completion_mask"].sum(),
    }
    assert_equal(case, ours, trainer._compute_loss(case.theirs, inputs))


def test_leave_one_out_and_standardized_advantages_are_those_of_trl(case):
    """TRL divides by the sample's deviation plus 1e-4: `ddof=1`, `eps=1e-4`."""
    grouped = case.rewards.view(PROMPTS, SIZE)
    mean, std = grouped.mean(1, keepdim=True), grouped.std(1, keepdim=True)
    standardized = methods.Standardized(ddof=1, eps=1e-4)
    method = methods.named("grpo").replace(advantage=standardized)
    np.testing.assert_allclose(
        advantage_of(method, case.taken),
        ((grouped - mean) / (std + 1e-4)).flatten(),
        atol=1e-6,
    )
    others = (grouped.sum(1, keepdim=True) - grouped) / (SIZE - 1)
    np.testing.assert_allclose(
        advantage_of(methods.named("rloo"), case.taken),
        (grouped - others).flatten(),
        atol=1e-6,
    )


def surrogate(ratio, advantage, low=0.2, high=0.2):
    """Clipped surrogate, as a gain."""
    advantage = advantage[:, None]
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def mean_of_means(per_token, mask):
    return ((per_token * mask).sum(1) / mask.sum(1)).mean()


def k3(now, reference):
    return (reference - now).exp() - (reference - now) - 1


def krpo(case, now, old, reference, mask):
    """The filter as in the paper, response by response."""
    advantage = torch.zeros(len(case.rewards))
    for group in range(PROMPTS):
        x, p = 0.0, 1.0
        rows = np.flatnonzero(case.taken.group == group)
        alive = len(set(case.rewards[rows].tolist())) > 1
        for row in rows:
            p = p + 1e-5
            gain = p / (p + 1e-2)
            x = x + gain * (float(case.rewards[row]) - x)
            p = (1 - gain) * p
            value = (float(case.rewards[row]) - x) / (p**0.5 + 1e-8)
            advantage[row] = value if alive else 0.0
    gain = surrogate((now - old).exp(), advantage)
    return mean_of_means(-gain + 0.01 * k3(now, reference), mask)


def all_pairs(values):
    return ((values[:, None] - values[None, :]) ** 2).mean()


def rebel(case, now, old, reference, mask):
    """All ordered pairs of a group, itself included, written out."""
    u = (now - old).sum(1) - case.rewards
    return sum(all_pairs(part) for part in u.view(PROMPTS, SIZE)) / PROMPTS


def vargrad(case, now, old, reference, mask):
    """Variance of the group by autograd, its mean not held constant."""
    u = (now - reference).sum(1) - case.rewards / 0.1
    return u.view(PROMPTS, SIZE).var(1, unbiased=False).mean()


def trajectory_balance(case, now, old, reference, mask, log_z=0.1):
    return (((now - reference).sum(1) - case.rewards / 0.1 + log_z) ** 2).mean()


def flowrl(case, now, old, reference, mask, log_z=0.1):
    grouped = case.rewards.view(PROMPTS, SIZE)
    spread = grouped.std(1, keepdim=True, unbiased=False)
    reward = ((grouped - grouped.mean(1, keepdim=True)) / (spread + 1e-6)).flatten()
    weight = (now - old).sum(1).exp().clamp(max=10).detach()
    mean = (now - reference).sum(1) / mask.sum(1)
    return (weight * (log_z + mean - 15 * reward) ** 2).mean()


def dro(case, now, old, reference, mask):
    grouped = case.rewards.view(PROMPTS, SIZE)
    advantage = (grouped - grouped.mean(1, keepdim=True)).flatten()
    delta = (now - reference).sum(1)
    return -(delta * advantage - 0.1 * delta**2 / 2).mean()


def gmpo(case, now, old, reference, mask):
    advantage = torch.tensor(advantage_of(methods.named("gmpo"), case.taken))
    sign = advantage.sign()[:, None]
    z = (sign * (now - old)).minimum(sign * (now - old).clamp(-0.4, 0.4)) * sign
    return -(advantage * ((z * mask).sum(1) / mask.sum(1)).exp()).mean()


def cppo(case, now, old, reference, mask):
    """GRPO on the three of largest advantage of each group, the first of equal ones."""
    grouped = case.rewards.view(PROMPTS, SIZE)
    spread = grouped.std(1, keepdim=True, unbiased=False)
    advantage = (grouped - grouped.mean(1, keepdim=True)) / (spread + 1e-4)
    order = advantage.abs().argsort(dim=1, descending=True, stable=True)[:, : SIZE // 2]
    kept = (order + SIZE * torch.arange(PROMPTS)[:, None]).flatten()
    per_token = -surrogate((now - old).exp(), advantage.flatten())
    per_token = per_token + 0.04 * k3(now, reference)
    return mean_of_means(per_token[kept], mask[kept])


def dppo(case, now, old, reference, mask):
    """Ratio to the sampler, left out where a probability has moved far already."""
    advantage = torch.tensor(advantage_of(methods.named("dppo"), case.taken))[:, None]
    sampler = torch.tensor(case.taken.rollouts.log_prob)
    moved = advantage.sign() * (now.exp() - sampler.exp()).detach()
    beyond = (moved > 0.02)[mask > 0]
    assert 0 < beyond.sum() < len(beyond) / 2
    log_ratio = now - sampler
    gain = torch.where(moved > 0.02, 0, log_ratio.exp() * advantage)
    return ((1e-3 * log_ratio**2 - gain) * mask).sum() / mask.sum()


def standardized(case):
    return torch.tensor(advantage_of(methods.named("grpo_token"), case.taken))


def sampler_ratio(case, old):
    """Log of the policy before the update over the one that sampled."""
    return old - torch.tensor(case.taken.rollouts.log_prob)


def stale(case, now, old, reference, mask):
    """Decoupled: the ratio to the old policy clipped, that to the sampler masked."""
    weight = sampler_ratio(case, old).exp()
    kept = (weight >= 0.5) & (weight <= 2)
    assert not kept.all()
    gain = surrogate((now - old).exp(), standardized(case), high=0.28)
    return -(torch.where(kept, weight, 0) * gain * mask).sum() / mask.sum()


def sequence(case, now, old, reference, mask):
    """One truncated weight for the tokens of a response."""
    weight = sampler_ratio(case, old).sum(1, keepdim=True).exp()
    assert (weight > 2).any()
    gain = surrogate((now - old).exp(), standardized(case), high=0.28)
    return -(weight.clamp(max=2) * gain * mask).sum() / mask.sum()


AUTOGRAD = (
    stale,
    sequence,
    krpo,
    cppo,
    dppo,
    rebel,
    vargrad,
    trajectory_balance,
    flowrl,
    dro,
    gmpo,
)


@pytest.mark.parametrize("loss", AUTOGRAD, ids=lambda loss: loss.__name__)
def test_gradient_of_torch(case, loss):
    ours, _ = our_gradient(case, loss.__name__)
    with torch.no_grad():
        old = case.log_probs(case.their_others["old"])
        reference = case.log_probs(case.their_others["reference"])
    now = case.log_probs(case.theirs)
    mask = case.padded()["completion_mask"]
    assert_equal(case, ours, loss(case, now, old, reference, mask))
