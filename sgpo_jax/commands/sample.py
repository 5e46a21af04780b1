"""`sgpo sample`: completions of prompts, with the log-probability of every token."""

import contextlib
import dataclasses
import io
import math
import pathlib
import re
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from sgpo_jax import sampling
    from sgpo_jax.models import Tokenizer
    from sgpo_jax.pipeline import Display


@dataclasses.dataclass(frozen=True)
class Options:
    """Print completions of prompts, with the log-probability of every token.

    They come from the initial policy of a run folder, or from a server.

    Attributes:
      prompts: what to complete; without any, the first held-out questions of the run.
      out: the run folder.
      samples: completions of each prompt.
      temperature: of sampling; 0 takes the most probable token.
      top_k: draw among that many most probable tokens; 0 for all.
      top_p: draw among the likeliest tokens that make up this probability.
      max_response: most tokens of a completion; 0 for what the run allows, or 128.
      seed: of the noise.
      server: address of an OpenAI-compatible server, as in http://localhost:8000/v1;
        the run folder is not read then.
      model: the server's name of the model.
    """

    prompts: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    _: dataclasses.KW_ONLY
    out: str = "runs/default"
    samples: int = 4
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_response: int = 0
    seed: int = 0
    server: str = ""
    model: str = "default"

    def __post_init__(self):
        if self.samples < 1 or self.max_response < 0:
            raise ValueError("samples must be at least 1, max_response at least 0")
        if (self.top_k > 0) + (self.top_p < 1) + (self.temperature == 0) > 1:
            raise ValueError("choose one of top_k, top_p < 1 and temperature 0")
        if self.server and not self.prompts:
            raise ValueError("give the server a prompt")

    def method(self) -> "sampling.Method":
        """Return how tokens are chosen."""
        from sgpo_jax import sampling

        if self.temperature == 0:
            return sampling.Greedy()
        if self.top_k:
            return sampling.TopK(self.top_k, temperature=self.temperature)
        if self.top_p < 1:
            return sampling.TopP(self.top_p, temperature=self.temperature)
        return sampling.Temperature(self.temperature)


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
    from sgpo_jax.pipeline import Display, UserError

    display = Display()
    try:
        options = parse(args)
        method = options.method()
        if options.server:
            shown = from_server(options, method, display)
        else:
            shown = from_run(options, method, display)
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


def parse(args: Sequence[str]) -> Options:
    """Read the options.

    Raises:
      ValueError: one line that says what is wrong.
      SystemExit: with code 0, for `--help`.
    """
    if any(arg in ("-h", "--help") for arg in args):
        tyro.cli(Options, args=["--help"], prog="sgpo sample")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            return tyro.cli(Options, args=args, prog="sgpo sample")
    except SystemExit:
        text = " ".join(re.sub(r"[─│╭╮╰╯├┤]+", " ", said.getvalue()).split())
        raise ValueError(f"{text} (see sgpo sample --help)") from None


def from_server(
    options: Options, method: "sampling.Method", display: "Display"
) -> list[Shown]:
    """Return completions of a server.

    Raises:
      ValueError: if one could not be had.
    """
    from sgpo_jax import models, sampling

    # Prompts go and completions come as text, so no vocabulary is needed here.
    server = sampling.Server(
        options.server,
        model=options.model,
        tokenizer=models.ByteTokenizer(),
        max_response=options.max_response or 128,
        prompt_as_text=True,
        retry=sampling.Retry(attempts=3),
    )
    requests = [
        sampling.Request(_key(prompt), server.tokenizer.encode(prompt), options.samples)
        for prompt in options.prompts
    ]
    with display.progress("sample", len(requests) * options.samples) as advance:
        done, failures = server.complete(
            requests,
            seed=options.seed,
            step=0,
            method=method,
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


def from_run(
    options: Options, method: "sampling.Method", display: "Display"
) -> list[Shown]:
    """Return completions of a policy of a run folder."""
    from sgpo_jax import rewards, sampling
    from sgpo_jax.commands.options import cache_programs
    from sgpo_jax.pipeline import RunFolder, Setup, UserError, folder, stages
    from sgpo_jax.presets import PRESETS

    run = RunFolder(pathlib.Path(options.out).expanduser())
    if not run.config.exists():
        raise UserError(f"{run.path} is no run folder; choose one with --out")
    saved = folder.unflatten(PRESETS["default"](), folder.read_json(run.config))
    config = dataclasses.replace(saved, out=options.out)
    cache_programs(config.cache)
    setup = Setup(config=config, worker=rewards.Worker())
    tokenizer = setup.tokenizer
    if not run.policy.exists():
        raise UserError(f"{run.path} has no initial policy yet; sgpo warmup makes it")
    params = stages.warmup(setup, run, display)
    prompts = options.prompts or [query.prompt for query in setup.held_out[:4]]
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    engine = sampling.Engine(
        setup.decoder,
        lanes=len(prompts),
        slots=min(options.samples, 16),
        max_prompt=max(map(len, encoded)),
        max_response=options.max_response or config.sampler.max_response,
        stop_tokens=tokenizer.stop_ids,
        steps=16,
    )
    requests = [
        sampling.Request(_key(prompt), ids, options.samples)
        for prompt, ids in zip(prompts, encoded, strict=True)
    ]
    with display.progress("sample", len(requests) * options.samples) as advance:
        rollouts = engine.sample(
            params,
            requests,
            seed=options.seed,
            step=0,
            method=method,
            on_progress=follow(advance),
        )
    return [
        _shown(prompts[request], rollouts, row, tokenizer)
        for row, request in enumerate(rollouts.request)
    ]


def follow(
    advance: Callable[[int, str], None],
) -> Callable[["sampling.Progress"], None]:
    """Return what shows a sampler's progress on a bar."""

    def on_progress(now: "sampling.Progress") -> None:
        advance(now.ended, str(now))

    return on_progress


def _key(prompt: str) -> int:
    return zlib.crc32(prompt.encode())


def _shown(
    prompt: str, rollouts: "sampling.Rollouts", row: int, tokenizer: "Tokenizer"
) -> Shown:
    from sgpo_jax.sampling import Finish

    length = int(rollouts.length[row])
    tokens = rollouts.tokens[row, :length].tolist()
    values = rollouts.log_prob_at_one[row, :length].tolist()
    pieces = [
        "<eos>" if token == tokenizer.eos_id else tokenizer.decode([token])
        for token in tokens
    ]
    return Shown(
        prompt=prompt,
        text=tokenizer.decode(tokens),
        tokens=list(zip(pieces, values, strict=True)),
        finish=Finish(int(rollouts.finish[row])).words,
    )
