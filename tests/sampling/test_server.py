import collections
import contextlib
import dataclasses
import http.server
import json
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgpo_jax import models, sampling
from sgpo_jax.sampling import completions, exchange
from tests.fleet.server import Listener

TOKENIZER = models.CharTokenizer("0123456789+=")


def answer(text, reason="stop", **fields):
    choice = {"text": text, "finish_reason": reason, **fields}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 4}}


@contextlib.contextmanager
def serve(respond):
    """Run an HTTP server; `respond(body, attempt)` gives (status, answer)."""
    seen: list[dict] = []
    attempts: collections.Counter = collections.Counter()
    state = {"now": 0, "most": 0}
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                state["now"] += 1
                state["most"] = max(state["most"], state["now"])
                seen.append(json.loads(raw))
                attempts[raw] += 1
                attempt = attempts[raw]
            status, reply = respond(json.loads(raw), attempt)
            with lock:
                state["now"] -= 1
            if status is None:
                self.connection.close()
                return
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = Listener(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen, state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def client(url, **changes):
    settings = {
        "model": "m",
        "tokenizer": TOKENIZER,
        "max_response": 5,
        "retry": sampling.Retry(attempts=3, wait=0.01, timeout=5.0),
    }
    return sampling.Server(url, **{**settings, **changes})


def make_requests(*samples):
    prompt = TOKENIZER.encode("1+1=")
    return [
        sampling.Request(key=10 + i, prompt=prompt, samples=n)
        for i, n in enumerate(samples)
    ]


def test_answers_become_rollouts():
    def respond(body, attempt):
        if body["seed"] % 2:
            return answer("123", "length")
        return answer("2", logprobs={"tokens": ["2"], "token_logprobs": [-0.5]})

    progress = []
    with serve(respond) as (url, seen, _):
        server = client(url, headers={"Authorization": "Bearer x"})
        assert isinstance(server, sampling.Sampler)
        rollouts = server.sample(
            make_requests(2, 0, 20), seed=1, step=2, on_progress=progress.append
        )
    assert rollouts.request.tolist() == [0] * 2 + [2] * 20
    assert rollouts.sample.tolist() == [0, 1, *range(20)]
    assert 0 < rollouts.finished.sum() < 22
    for row in range(22):
        tokens = rollouts.tokens[row, : rollouts.length[row]].tolist()
        if rollouts.finished[row]:
            assert tokens == [3, 0]
            np.testing.assert_array_equal(rollouts.log_prob[row, :3], [-0.5, np.nan, 0])
        else:
            assert tokens == [2, 3, 4]
            assert np.isnan(rollouts.log_prob[row, :3]).all()
    assert progress[-1].ended == progress[-1].total == 22
    assert seen[0]["prompt"] == TOKENIZER.encode("1+1=")
    assert len({body["seed"] for body in seen}) == 22


def test_seeds_depend_on_the_sample_and_the_step_only():
    def seeds(requests, **clock):
        with serve(lambda body, _: answer("1")) as (url, seen, _):
            client(url).sample(requests, **clock)
        return {body["seed"] for body in seen}

    both = seeds(make_requests(3, 3), seed=1, step=0)
    assert both >= seeds(make_requests(3, 3)[1:], seed=1, step=0)
    assert not both & seeds(make_requests(3, 3), seed=1, step=1)


def test_token_ids_of_the_server_are_preferred():
    spelled = {"tokens": ["token_id:7", "token_id:8"], "token_logprobs": [-1.0, None]}
    for fields in (
        {"token_ids": [7, 8], "logprobs": {"token_logprobs": [-1.0, None]}},
        {"logprobs": spelled},
        {"logprobs": {"content": [{"id": 7, "logprob": -1.0}, {"id": 8}]}},
    ):
        with serve(lambda body, _, f=fields: answer("99", "length", **f)) as (url, *_):
            rollouts = client(url).sample(make_requests(1), seed=0, step=0)
        assert rollouts.tokens[0].tolist() == [7, 8, 0, 0, 0, 0]
        np.testing.assert_array_equal(rollouts.log_prob_at_one[0, :2], [-1.0, np.nan])


@pytest.mark.parametrize(
    ("strategy", "fields"),
    [
        (sampling.Greedy(), {"temperature": 0.0}),
        (sampling.Temperature(0.5), {"temperature": 0.5}),
        (sampling.TopK(3), {"top_k": 3}),
        (sampling.TopP(0.9, temperature=2.0), {"temperature": 2.0, "top_p": 0.9}),
        (sampling.MinP(0.1), {"min_p": 0.1}),
    ],
    ids=str,
)
def test_methods_are_sent_whole_and_unknown_log_probs_are_nan(strategy, fields):
    report = {"tokens": ["1"], "token_logprobs": [-0.5]}
    with serve(lambda *_: answer("1", "length", logprobs=report)) as (url, seen, _):
        server = client(url, prompt_as_text=True, extra={"stop": ["="]})
        rollouts = server.sample(make_requests(1), seed=0, step=0, strategy=strategy)
    everything = {"temperature": 1.0, "top_k": -1, "top_p": 1.0, "min_p": 0.0}
    fields = {**everything, **fields}
    assert seen[0].items() >= {**fields, "prompt": "1+1=", "stop": ["="]}.items()
    assert rollouts.log_prob_at_one[0, 0] == -0.5
    assert np.isnan(rollouts.log_prob[0, 0]) == (strategy.temperature != 1)
    assert np.isnan(rollouts.support_mass[0, 0]) == strategy.truncates


def test_transient_failures_are_tried_again():
    def respond(body, attempt):
        return answer("1") if attempt == 3 else ((503, 429, None)[body["seed"] % 3], {})

    with serve(respond) as (url, seen, _):
        rollouts = client(url).sample(make_requests(12), seed=0, step=0)
    assert len(rollouts) == 12
    assert len(seen) == 36


def test_partial_results_are_kept():
    def respond(body, attempt):
        return (400, {"error": "bad seed"}) if body["seed"] % 2 else answer("1")

    with serve(respond) as (url, seen, _):
        with pytest.raises(sampling.IncompleteError, match=r"HTTP 400: .*seed") as info:
            client(url).sample(make_requests(5, 15), seed=0, step=0)
    rollouts, failures = info.value.rollouts, info.value.failures
    places = zip(rollouts.request.tolist(), rollouts.sample.tolist(), strict=True)
    asked = {(i, j) for i, n in enumerate((5, 15)) for j in range(n)}
    assert 0 < len(rollouts) < 20
    assert {*places} == asked - set(failures)
    assert len(seen) == 20  # a refusal is final


def test_slow_and_malformed_answers_fail():
    def respond(body, attempt):
        if body["seed"] % 2:
            time.sleep(2.5)
            return answer("1")
        return 200, {"choices": []}

    with serve(respond) as (url, *_):
        server = client(url, retry=sampling.Retry(attempts=1, timeout=1.0))
        with pytest.raises(sampling.IncompleteError) as info:
            server.sample(make_requests(8), seed=0, step=0)
    reasons = " ".join(info.value.failures.values())
    assert "timed out" in reasons
    assert "no completion" in reasons
    assert len(info.value.rollouts) == 0


def test_concurrency_is_bounded():
    def respond(body, attempt):
        time.sleep(0.02)
        return answer("1")

    with serve(respond) as (url, _, state):
        client(url, concurrency=3).sample(make_requests(18), seed=0, step=0)
    assert 1 < state["most"] <= 3


def test_waits_grow_and_follow_the_server():
    retry = sampling.Retry(wait=1.0, longest=5.0)
    for attempt, most in enumerate((1, 2, 4, 5, 5)):
        assert most / 2 <= retry.pause(attempt, None) <= most
    assert retry.pause(0, "3") == 3.0
    for strange in ("Wed, 21 Oct 2026 07:28:00 GMT", "\xb2", "9" * 400, "-3", ""):
        assert retry.pause(0, strange) <= 1.0


def test_no_end_is_invented_after_a_stop_string():
    with serve(lambda *_: answer("12", stop_reason="+")) as (url, *_):
        rollouts = client(url).sample(make_requests(1), seed=0, step=0)
    assert rollouts.tokens[0].tolist() == [2, 3, 0, 0, 0, 0]
    assert rollouts.length[0] == 2
    assert rollouts.finished[0]


@dataclasses.dataclass(frozen=True)
class SeveralEnds(models.CharTokenizer):
    """A tokenizer of a model that ends at two tokens, as chat models do."""

    @property
    def stop_ids(self):
        return (0, 12)


@pytest.mark.parametrize(
    ("fields", "tokens", "finish"),
    [
        ({"stop_reason": 12}, [2, 3, 12], "TOKEN"),
        ({"matched_stop": 12}, [2, 3, 12], "TOKEN"),
        ({"stop_reason": 12, "token_ids": [2, 3, 12]}, [2, 3, 12], "TOKEN"),
        ({"token_ids": [2, 3, 12]}, [2, 3, 12], "TOKEN"),
        ({"stop_reason": None}, [2, 3, 0], "TOKEN"),
        ({}, [2, 3], "STRING"),
        ({"matched_stop": "###"}, [2, 3], "STRING"),
        ({"logprobs": {"content": [{"id": 2}, {"id": 3}]}}, [2, 3], "STRING"),
        ({"stop_reason": None, "token_ids": [2, 3, 7]}, [2, 3, 7, 0], "TOKEN"),
    ],
    ids=str,
)
def test_the_end_token_is_the_one_the_server_names(fields, tokens, finish):
    """Asked with a stop string too: what may have been one is no end token."""
    tokenizer = SeveralEnds(TOKENIZER.alphabet)
    with serve(lambda *_: answer("12", **fields)) as (url, *_):
        server = client(url, tokenizer=tokenizer, extra={"stop": ["###"]})
        rollouts = server.sample(make_requests(1), seed=0, step=0)
    assert rollouts.tokens[0, : rollouts.length[0]].tolist() == tokens
    assert rollouts.finish[0] == sampling.Finish[finish]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 2**65)
    | st.floats()
    | st.sampled_from(["stop", "length", "12", "token_id:3", "x", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "logprob", "content", "tokens"]), inner
        )
    ),
    max_leaves=6,
)
CHOICE = st.fixed_dictionaries(
    {"text": st.just("12") | JSON, "finish_reason": st.just("stop") | JSON},
    optional={
        key: JSON
        for key in ("token_ids", "logprobs", "stop_reason", "matched_stop", "index")
    },
)


@settings(max_examples=400)
@given(st.fixed_dictionaries({"choices": st.lists(CHOICE, max_size=2) | JSON}))
def test_whatever_is_answered_is_a_completion_or_refused(content):
    try:
        found = completions.parse(content, TOKENIZER, most_tokens=5)
    except exchange.RefusedError as error:
        assert len(str(error)) < 400
        return
    assert 0 < len(found.tokens) <= 6
    assert all(0 <= token < TOKENIZER.vocab_size for token in found.tokens)
    assert not any(value > 0 for value in found.log_prob)
    assert len(found.log_prob) == len(found.tokens)


def test_refused_answers_are_counted_by_kind():
    def respond(body, attempt):
        reason = ("error", "abort", "stop")[body["seed"] % 3]
        return answer("1", reason)

    with serve(respond) as (url, seen, _):
        with pytest.raises(sampling.IncompleteError) as info:
            client(url).sample(make_requests(30), seed=0, step=0)
    counts = info.value.counts
    assert counts.keys() == {"finish reason 'error'", "finish reason 'abort'"}
    assert sum(counts.values()) + len(info.value.rollouts) == 30
    assert len(seen) == 30
    assert "finish reason 'abort'" in str(info.value)


def test_all_attempts_together_end_by_a_deadline():
    with serve(lambda *_: (503, {})) as (url, seen, _):
        retry = sampling.Retry(attempts=1000, wait=0.05, longest=0.05, deadline=1.0)
        with pytest.raises(sampling.IncompleteError, match="no answer within 1 s"):
            client(url, retry=retry).sample(make_requests(1), seed=0, step=0)
    assert 2 <= len(seen) < 100
