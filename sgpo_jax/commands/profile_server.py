"""`sgpo profile --server URL`: profiling by an inference fleet, no weights here."""

import contextlib
import dataclasses
import pathlib
from typing import TYPE_CHECKING

from sgpo_jax.bounds import (
    Count,
    Finite,
    Natural,
    Seed,
    Size,
    Temperature,
    bounded,
)
from sgpo_jax.client_config import ClientLimits
from sgpo_jax.commands import profile_files
from sgpo_jax.prompt_config import PromptConfig

if TYPE_CHECKING:
    from sgpo_jax import models, sampling
    from sgpo_jax.data import Query
    from sgpo_jax.pipeline import Display
    from sgpo_jax.profiling import Profile, SamplingRule
    from sgpo_jax.rollouts import ServerRollouts


@dataclasses.dataclass(frozen=True, kw_only=True)
@bounded
class ServerProfileOptions:
    """Profile questions by an OpenAI-compatible server (vLLM, SGLang, llama.cpp).

    Finished chunks are kept: the same command resumes after an interruption.

    Attributes:
      server: address, as in http://localhost:8000/v1.
      data: source of the questions, as --data of a run.
      out: folder of the profile.
      model: the server's name of the model.
      tokenizer: hf:FOLDER, hf:OWNER/NAME or gguf:FILE, for the chat template and exact
        lengths; no weight is read. Without one, prompts go as plain text, and lengths
        are bytes where the server lists no tokens.
      prompt: how questions are put, with a tokenizer.
      samples: samples per question; with a rule, the mean of them.
      rule: flat, or sequential,first=4,batch=4,most=32 or two-stage: more samples only
        where the decision is open, within samples times questions.
      max_response: longest response in tokens.
      temperature: of sampling.
      stop: strings that end a response.
      solved_at: reward from which a response is a success.
      completions: keep the responses and rewards in completions.parquet.
      max_questions: most questions, drawn by content; 0 for all.
      chunk: questions sampled at a time; a finished chunk survives a kill.
      seed: of the samples.
      limits: of the client.
    """

    server: str
    data: str
    out: str
    model: str = "default"
    tokenizer: str = ""
    prompt: PromptConfig = PromptConfig()
    samples: Size = 8
    rule: str = "flat"
    max_response: Size = 512
    temperature: Temperature = 1.0
    stop: tuple[str, ...] = ()
    solved_at: Finite = 1.0
    completions: bool = False
    max_questions: Natural = 0
    chunk: Count = 256
    seed: Seed = 0
    limits: ClientLimits = ClientLimits()

    def __post_init__(self):
        if self.prompt != PromptConfig() and not self.tokenizer:
            raise ValueError("prompt needs a tokenizer; give one, or drop it")
        if not self.server.startswith(("http://", "https://")):
            raise ValueError(
                f"server {self.server!r} must begin with http:// or https://"
            )


def run(options: ServerProfileOptions) -> str:
    """Profile; return what is printed.

    Raises:
      UserError: if questions or tokenizer cannot be had.
      IncompleteError: if the server does not answer; finished chunks are kept.
    """
    from sgpo_jax import planning, rewards
    from sgpo_jax.data import save_queries, split
    from sgpo_jax.hosts import FolderInUseError, folder_lock
    from sgpo_jax.pipeline import Display, RunFolder, UserError
    from sgpo_jax.rollouts import ServerRollouts

    folder = RunFolder(pathlib.Path(options.out).expanduser())
    if folder.config.exists() or folder.profile.exists():
        raise UserError(f"{folder.path} holds a run or a profile; choose another --out")
    rule = planning.rule(options.rule, planning.SAMPLING_RULES, kind="sampling rule")
    server = client(options)
    queries = profile_files.questions(folder.path, options.data)
    if 0 < options.max_questions < len(queries):
        queries = split(queries, held_out=options.max_questions, seed=options.seed)[1]
    display = Display()
    try:
        with (
            folder_lock(folder.path),
            rewards.Worker(batch_deadline=3600.0) as worker,
            contextlib.ExitStack() as held,
        ):
            worker.judge(solved_at=options.solved_at)
            worker.check(queries)
            save_queries(folder.path / profile_files.QUERIES, queries)
            held.callback(lambda: display.problems(worker.problems))
            rollouts = ServerRollouts(
                server=server,
                worker=worker,
                seed=options.seed,
                temperature=options.temperature,
            )
            profile = _measure(options, rollouts, queries, rule, display)
            profile.save(folder.profile)
    except FolderInUseError as error:
        raise UserError(str(error)) from None
    return f"{profile}\nwritten: {folder.profile}"


def client(options: ServerProfileOptions) -> "sampling.Server":
    """Return the client; without a tokenizer prompts go as text.

    Raises:
      ValueError: if there is no such tokenizer, or the access token is not in the
        environment.
    """
    from sgpo_jax import sampling
    from sgpo_jax.models import ByteTokenizer, pretrained

    limits = options.limits
    tokenizer: models.Tokenizer = ByteTokenizer()
    if options.tokenizer:
        tokenizer = pretrained.open_tokenizer(options.tokenizer).prompted(
            **options.prompt.options
        )
    extra: dict[str, object] = {"logprobs": 1, "return_token_ids": True}
    if options.stop:
        extra["stop"] = list(options.stop)
    return sampling.Server(
        options.server,
        model=options.model,
        tokenizer=tokenizer,
        max_response=options.max_response,
        prompt_as_text=not options.tokenizer,
        any_token=not options.tokenizer,
        concurrency=limits.concurrency,
        retry=sampling.Retry(attempts=limits.attempts, timeout=limits.timeout),
        headers=limits.headers(),
        extra=extra,
    )


def _measure(
    options: ServerProfileOptions,
    rollouts: "ServerRollouts",
    queries: "tuple[Query, ...]",
    rule: "SamplingRule",
    display: "Display",
) -> "Profile":
    from sgpo_jax.data import fingerprint
    from sgpo_jax.pipeline import RunFolder
    from sgpo_jax.profiling import Chunks, measure_by
    from sgpo_jax.rewards import sources
    from sgpo_jax.sampling import SampleProgress

    folder = RunFolder(pathlib.Path(options.out).expanduser())
    total = options.samples * len(queries)
    with display.progress("profile", total) as advance:
        before = 0

        def follow(now: SampleProgress) -> None:
            advance(before + now.ended, "")

        def on_chunk(done: int, count: int, chunk: "Profile") -> None:
            nonlocal before
            del done, count
            before += int(chunk.drawn.sum())
            solved = chunk.successes.sum() / max(chunk.samples.sum(), 1)
            advance(before, f"success {solved:.3f}")

        return measure_by(
            rule,
            dataclasses.replace(rollouts, watch=follow),
            None,
            queries,
            samples=options.samples,
            chunks=Chunks(
                folder=folder.chunks,
                size=options.chunk,
                completions=folder.path / "completions.parquet"
                if options.completions
                else None,
            ),
            source={
                # The address may change between a kill and the rest.
                "policy": options.server
                if options.model == "default"
                else options.model,
                "data": options.data,
                "questions": fingerprint(queries).short,
                "seed": options.seed,
                "temperature": options.temperature,
                "max_response": options.max_response,
                "stop": list(options.stop),
                "tokenizer": options.tokenizer,
                "prompt": options.prompt.options,
                "verifiers": sources(query.verifier for query in queries),
            },
            on_chunk=on_chunk,
            on_round=lambda round_: display.say(str(round_)),
            solved_at=options.solved_at,
        )
