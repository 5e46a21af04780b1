"""`sgpo sample`: completions of prompts, with the log-probability of every token."""

import dataclasses
import math
import pathlib
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sgpo_jax.commands.sample_options import SampleOptions, parse

if TYPE_CHECKING:
    from sgpo_jax import models, sampling
    from sgpo_jax.config import SamplerConfig
    from sgpo_jax.models import Tokenizer
    from sgpo_jax.pipeline import Display


@dataclasses.dataclass(frozen=True)
class Shown:
    """One completion to print.

    Attributes:
      prompt: what it completes.
      text: the completion.
      tokens: each token's text and log-probability at temperature 1.
      finish: why it ended, in words.
    """

    prompt: str
    text: str
    tokens: Sequence[tuple[str, float]]
    finish: str

    def __str__(self) -> str:
        known = [value for _, value in self.tokens if not math.isnan(value)]
        tokens = " ".join(f"{text!r} {value:.2f}" for text, value in self.tokens)
        return (
            f"{self.text}\n    log-probability {sum(known):.2f}, {len(self.tokens)}"
            f" tokens, ended by {self.finish}\n    {tokens}"
        )


def main(args: list[str]) -> int:
    """Run the command; return its exit code."""
    from sgpo_jax.hosts import start_backends
    from sgpo_jax.pipeline import Display, UserError

    display = Display()
    try:
        options = parse(args)
        if options.server:
            shown = from_server(options, display)
        else:
            start_backends()
            policy = published(options) if options.source else of_run(options, display)
            shown = complete(policy, options, display)
    except (UserError, ValueError) as error:
        print(f"sgpo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    previous = None
    for one in shown:
        if one.prompt != previous:
            print(f"{'' if previous is None else chr(10)}{one.prompt}")
            previous = one.prompt
        print(f"  > {one}")
    return 0


def from_server(options: SampleOptions, display: "Display") -> list[Shown]:
    """Return completions of a server.

    Raises:
      ValueError: if one could not be had.
    """
    from sgpo_jax import models, sampling

    # Prompts and completions travel as text, so no vocabulary is needed here.
    server = sampling.Server(
        options.server,
        model=options.model,
        tokenizer=models.ByteTokenizer(),
        max_response=options.end.max_response or 128,
        prompt_as_text=True,
        any_token=True,
        retry=sampling.Retry(attempts=3),
        extra={"stop": list(options.end.stop)} if options.end.stop else {},
    )
    requests = [
        sampling.Request(_key(prompt), server.tokenizer.encode(prompt), options.samples)
        for prompt in options.prompts
    ]
    with display.progress("sample", len(requests) * options.samples) as advance:
        done, failures = server.complete(
            requests,
            seed=options.choice.seed,
            step=0,
            strategy=options.choice.strategy(),
            on_progress=follow(advance),
        )
    if failures:
        first = next(iter(failures.values()))
        raise ValueError(f"{options.server}: {len(failures)} samples failed: {first}")
    return [
        Shown(
            prompt=options.prompts[i],
            text=one.text,
            tokens=list(zip(map(str, one.tokens), one.log_prob, strict=True)),
            finish=one.finish.words,
        )
        for (i, _), one in sorted(done.items())
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedPolicy:
    """Policy, prompts and sampler settings of `sgpo sample`.

    Attributes:
      config: shape of the decoder.
      params: its parameters.
      tokenizer: text to tokens and back.
      prompts: what to complete.
      sampler: lengths, stop strings and thinking budget, unless options override them.
    """

    config: "models.DecoderConfig"
    params: "models.Params"
    tokenizer: "Tokenizer"
    prompts: Sequence[str]
    sampler: "SamplerConfig"


def of_run(options: SampleOptions, display: "Display") -> LoadedPolicy:
    """Return a policy of a run folder."""
    from sgpo_jax import rewards
    from sgpo_jax.pipeline import folder, open_run, saved
    from sgpo_jax.session import cache_programs

    config = folder.read_experiment(pathlib.Path(options.out))
    cache_programs(config.cache)
    run = open_run(config, rewards.Worker(), display=display)
    name = saved.policy_name(run.folder, options.policy)
    params = saved.saved_params(run, name, checkpoint=options.checkpoint)
    return LoadedPolicy(
        config=run.decoder,
        params=params,
        tokenizer=run.tokenizer,
        prompts=options.prompts or [query.prompt for query in run.held_out[:4]],
        sampler=config.sampler,
    )


def published(options: SampleOptions) -> LoadedPolicy:
    """Return a published policy, as `ModelConfig.source` names them."""
    from sgpo_jax.config import SamplerConfig
    from sgpo_jax.models import pretrained

    source = pretrained.open_source(options.source)
    return LoadedPolicy(
        config=source.config,
        params=pretrained.load_params(source.tensors, source.config),
        tokenizer=source.tokenizer().prompted(**options.prompt.options),
        prompts=options.prompts,
        sampler=SamplerConfig(max_response=128),
    )


def complete(
    policy: LoadedPolicy, options: SampleOptions, display: "Display"
) -> list[Shown]:
    """Return completions of a policy at hand."""
    from sgpo_jax import sampling, session

    tokenizer, end = policy.tokenizer, options.end
    ending = policy.sampler
    if end.thinking:
        ending = dataclasses.replace(
            ending, thinking=end.thinking, end_of_thinking=end.end_of_thinking
        )
    stop = session.stop_strings(
        (*ending.stop, *end.stop), tokenizer, keep=ending.keep_stop
    )
    encoded = [tokenizer.encode_prompt(prompt) for prompt in policy.prompts]
    engine = sampling.Engine(
        policy.config,
        lanes=len(encoded),
        slots=min(options.samples, 16),
        max_prompt=max(map(len, encoded)),
        max_response=end.max_response or ending.max_response,
        stop_tokens=tokenizer.stop_ids,
        stop_strings=stop,
        end_of_thinking=session.ending_tokens(ending, tokenizer),
        steps=16,
    )
    requests = [
        sampling.Request(
            _key(prompt), ids, options.samples, thinking=ending.thinking or None
        )
        for prompt, ids in zip(policy.prompts, encoded, strict=True)
    ]
    with display.progress("sample", len(requests) * options.samples) as advance:
        rollouts = engine.sample(
            policy.params,
            requests,
            seed=options.choice.seed,
            step=0,
            strategy=options.choice.strategy(),
            on_progress=follow(advance),
        )
    return [
        _shown(policy.prompts[int(request)], rollouts, row, tokenizer, stop)
        for row, request in enumerate(rollouts.request)
    ]


def follow(
    advance: Callable[[int, str], None],
) -> Callable[["sampling.SampleProgress"], None]:
    """Return what shows a sampler's progress on a bar."""

    def on_progress(now: "sampling.SampleProgress") -> None:
        advance(now.ended, str(now))

    return on_progress


def _key(prompt: str) -> int:
    return zlib.crc32(prompt.encode())


def _shown(
    prompt: str,
    rollouts: "sampling.Rollouts",
    row: int,
    tokenizer: "Tokenizer",
    stop: "sampling.StopStrings | None",
) -> Shown:
    from sgpo_jax.sampling import Finish

    length = int(rollouts.length[row])
    tokens = rollouts.tokens[row, :length].tolist()
    values = rollouts.log_prob_at_one[row, :length].tolist()
    pieces = [
        "<eos>" if token in tokenizer.stop_ids else tokenizer.decode([token])
        for token in tokens
    ]
    text = tokenizer.decode(tokens)
    return Shown(
        prompt=prompt,
        text=text if stop is None else stop.cut(text),
        tokens=list(zip(pieces, values, strict=True)),
        finish=Finish(int(rollouts.finish[row])).words,
    )
