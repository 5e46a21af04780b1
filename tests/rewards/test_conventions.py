"""Reward functions in the calling conventions people have."""

import asyncio
import functools
import textwrap
import threading

import numpy as np
import pytest

from sgpo_jax.data import Query
from sgpo_jax.rewards import Problems, UnscorableError, VerifierError, Worker

NAN = float("nan")


@pytest.fixture(scope="module")
def worker():
    with Worker(deadline=10.0, workers=2) as worker:
        yield worker


def query(verifier, **metadata):
    return Query(
        id="q", prompt="4+3=", reference="7", verifier=verifier, metadata=metadata
    )


def plain(completion, reference):
    return float(completion == reference)


def plain_with_columns(completion, reference, *, bonus, absent=0.0):
    return float(completion == reference) + bonus + absent


def by_other_names(response, prompt, answer):
    return float(prompt + response == "4+3=" + answer)


def of_the_query(completion, query: Query):
    return float(query.reference == completion) + query.metadata["bonus"]


def of_the_completion(completion):
    return float(len(completion))


async def waiting(completion, reference):
    await asyncio.sleep(0.0)
    return float(completion == reference)


def trl(completions, solution, **kwargs):
    return [float(c == s) for c, s in zip(completions, solution, strict=True)]


def trl_plural(completions, solutions, **kwargs):
    return [float(c == s) for c, s in zip(completions, solutions, strict=True)]


def trl_by_keyword(**columns):
    pairs = zip(columns["completions"], columns["question"], strict=True)
    return [float(q + c == "4+3=7") for c, q in pairs]


def trl_chat(prompts, completions, reference, **kwargs):
    assert all(turns[-1]["role"] == "user" for turns in prompts)
    return [float(c[0]["content"] == r) for c, r in zip(completions, reference)]  # noqa: B905


def trl_chat_get(prompts, completions, reference, **kwargs):
    return [float(c[-1].get("content") == r) for c, r in zip(completions, reference)]  # noqa: B905


async def trl_async(completions, reference, **kwargs):
    await asyncio.sleep(0.0)
    return [float(c[0]["content"] == r) for c, r in zip(completions, reference)]  # noqa: B905


def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(solution_str == ground_truth), "acc": True}


def verl_nested(solution_str, ground_truth, extra_info):
    assert extra_info == {"index": 1}
    return float(solution_str == str(ground_truth["target"]))


def verl_batch(data_sources, solution_strs, ground_truths, extra_infos):
    assert {*data_sources} == {"sums"} and extra_infos[0]["split"] == "train"
    pairs = zip(solution_strs, ground_truths, strict=True)
    return [{"score": float(s == g)} for s, g in pairs]


def verl_tuple(data_source, solution_str, ground_truth, extra_info):
    assert data_source == "sums" and extra_info["split"] == "train"
    return float(solution_str == ground_truth), "because"


@pytest.mark.parametrize(
    ("function", "values"),
    [
        (plain, [1, 0]),
        (functools.partial(plain, reference="8"), [0, 1]),
        (plain_with_columns, [1.5, 0.5]),
        (by_other_names, [1, 0]),
        (of_the_query, [1.5, 0.5]),
        (of_the_completion, [1, 1]),
        (waiting, [1, 0]),
        (trl, [1, 0]),
        (trl_plural, [1, 0]),
        (trl_by_keyword, [1, 0]),
        (trl_chat, [1, 0]),
        (trl_chat_get, [1, 0]),
        (trl_async, [1, 0]),
        (compute_score, [1, 0]),
        (verl_tuple, [1, 0]),
        (verl_batch, [1, 0]),
        (lambda text, answer: text == answer, [1, 0]),
    ],
    ids=lambda it: getattr(it, "__name__", None),
)
def test_every_convention_is_told_by_the_signature(worker, function, values):
    asked = query(
        worker.register(function), bonus=0.5, data_source="sums", split="train"
    )
    worker.check([asked])
    np.testing.assert_array_equal(worker.score(["7", "8"], [asked] * 2), values)


def test_what_a_verl_file_nests_stays_nested(worker):
    """As TinyZero's countdown has it: a struct as ground truth, and extra_info."""
    asked = query(
        worker.register(verl_nested),
        **{"ground_truth": {"target": 7}, "extra_info": {"index": 1}},
    )
    np.testing.assert_array_equal(worker.score(["7", "8"], [asked] * 2), [1, 0])


def test_a_variable_that_scorers_do_not_see_is_said(worker, monkeypatch):
    monkeypatch.setenv("MY_JUDGE_KEY", "secret")

    def judged(completion, reference):
        import os

        return float(len(os.environ["MY_JUDGE_KEY"]))

    with pytest.raises(VerifierError, match=r"--reward\.environment MY_JUDGE_KEY"):
        worker.check([query(worker.register(judged))])


def test_a_closure_brings_what_it_refers_to(worker):
    known = {"4+3=": "7"}

    def reward(prompt, completion):
        return known.get(prompt) == completion

    asked = query(worker.register(reward))
    np.testing.assert_array_equal(worker.score(["7", "8"], [asked] * 2), [1, 0])


def test_a_function_that_is_defined_again_is_the_new_one(worker):
    def define(wanted):
        return lambda completion, reference: completion == wanted

    for wanted in ("7", "8", "7"):
        asked = query(worker.register(define(wanted)))
        expected = [wanted == "7", wanted == "8"]
        np.testing.assert_array_equal(worker.score(["7", "8"], [asked] * 2), expected)


def test_what_cannot_be_sent_is_an_error_with_the_remedy(worker):
    lock = threading.Lock()
    with pytest.raises(ValueError, match=r"my_reward\.py:function"):
        worker.register(lambda completion, reference: lock.locked())


def test_whole_batches_with_tokens(worker):
    """One call sees all completions, in order, however many are added when."""

    def ranks(completions, completion_ids, **kwargs):
        longest = sorted(range(len(completions)), key=lambda i: len(completion_ids[i]))
        return [longest.index(i) / len(completions) for i in range(len(completions))]

    asked = query(worker.register(ranks))
    lengths = np.random.default_rng(0).permutation(200)
    with worker.batch() as batch:
        for number, length in enumerate(lengths):
            batch.add("x", asked, [0] * int(length))
            if number % 50 == 7:
                batch.send()
        values = batch.results()
    np.testing.assert_allclose(values, lengths / 200)


@pytest.mark.parametrize("function", [trl_chat, trl_chat_get, trl_async])
def test_an_empty_completion_is_a_turn_without_text(worker, function):
    asked = [query(worker.register(function))] * 2
    np.testing.assert_array_equal(worker.score(["", "7"], asked), [0, 1])


def test_a_fault_of_the_function_is_said_as_it_is(worker):
    def broken(completions, **kwargs):
        return [completion.missing for completion in completions]

    with pytest.raises(VerifierError, match="'str' object has no attribute 'missing'"):
        worker.check([query(worker.register(broken))])


def test_a_batch_of_the_wrong_length_is_unscorable(worker):
    asked = query(worker.register(lambda completions, **kw: [1.0]))
    assert np.isnan(worker.score(["7", "8"], [asked] * 2)).all()


def test_a_file_beside_the_user_with_options(worker, tmp_path):
    (tmp_path / "helper.py").write_text("BASE = 10.0")
    (tmp_path / "my_reward.py").write_text(
        textwrap.dedent("""
            from helper import BASE
            def score(completion, reference, *, scale=1.0):
                return BASE + scale * (completion == reference)
        """)
    )
    name = f"{tmp_path}/my_reward.py:score:scale=0.5"
    assert worker.score(["7"], [query(name)]) == 10.5
    with pytest.raises(VerifierError, match="there is no file"):
        worker.check([query(f"{tmp_path}/other.py:score")])


def test_weighted_sums_keep_their_parts(worker):
    name = f"0.75*exact + -0.25*{worker.register(of_the_completion)}"
    with worker.batch() as batch:
        for text in ("7", "8", "seven"):
            batch.add(text, query(name))
        np.testing.assert_array_equal(batch.results(), [0.5, -0.25, -1.25])
    exact, length = batch.parts.values()
    np.testing.assert_array_equal(exact, [1, 0, 0])
    np.testing.assert_array_equal(length, [1, 1, 5])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exactt", "none of"),
        ("numeric:tolerence=1", "no option 'tolerence'; there are: tolerance"),
        ("numeric:tolerance=-1", "at least 0"),
        ("numeric:unit=parsec", "is none of L, cl"),
        ("format:(", "no expression of RE2"),
        ("json_schema:path=/nowhere.json", "nowhere"),
        ("command:no-such-program", "no program 'no-such"),
        ("no.such.module:score", "cannot be imported"),
        ("my_reward.py", "names no function: my_reward.py:FUNCTION"),
        ("json:nothing", "json has no function 'nothing'; it has dump, dumps, "),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_sampled(worker, name, words):
    with pytest.raises(VerifierError, match=words):
        worker.check([query(name)])


def test_a_script_that_ends_itself_is_named(worker, tmp_path):
    (tmp_path / "script.py").write_text("raise SystemExit(3)")
    with pytest.raises(VerifierError, match=r"script\.py:score.* SystemExit: 3"):
        worker.check([query(f"{tmp_path}/script.py:score")])


def test_a_wrong_signature_is_refused(worker):
    def needs(completion, reference, *, column):
        return 1.0

    with pytest.raises(VerifierError, match=r"column.*columns it needs are metadata"):
        worker.check([query(worker.register(needs))])
    worker.check([query(worker.register(needs), column=1)])
    with pytest.raises(VerifierError, match="takes no completion"):
        worker.check([query(worker.register(lambda: 1.0))])


@pytest.mark.parametrize("name", ["trainer_state", "log_extra", "log_metric"])
def test_what_only_the_trainer_of_trl_has_is_refused_by_name(worker, name):
    scope = {}
    exec(f"def needs(completions, {name}): return [1.0] * len(completions)", scope)
    with pytest.raises(ValueError, match=f"needs {name}, .* give it a default"):
        worker.check([query(worker.register(scope["needs"]))])
    exec(f"def can(completions, {name}=None): return [1.0] * len(completions)", scope)
    worker.check([query(worker.register(scope["can"]))])


def test_when_nothing_was_scored_the_verifier_says_why():
    problems = Problems()
    problems.raise_if_nothing_scored()
    with Worker(workers=1) as worker:
        asked = query(worker.register(lambda completion, reference: 1 / 0))
        worker.score(["7", "8"], [asked] * 2)
        with pytest.raises(UnscorableError, match=r"none of 2.*division by zero"):
            worker.problems.raise_if_nothing_scored()
        worker.score(["7"], [query("exact")])
        worker.problems.raise_if_nothing_scored()


def test_formats_schemas_and_commands(worker, tmp_path):
    form = query(r"format:<think>.*</think>\s*<answer>[0-9]+</answer>")
    good = "<think>4\n+3</think>\n<answer>7</answer>\n"
    texts = [good, good + "x", "<answer>7</answer>", "(" * 200_000, "\ud800"]
    np.testing.assert_array_equal(worker.score(texts, [form] * 5), [1, 0, 0, 0, 0])
    # Exponential for an expression that goes back.
    hard = query("format:(a|aa|a?)*b")
    assert worker.score(["a" * 100_000], [hard]) == 0

    path = tmp_path / "schema.json"
    path.write_text('{"type": "object", "required": ["x"]}')
    schema = query(f"json_schema:path={path}")
    texts = [
        '{"x": 1}',
        'Here:\n```json\n{"x": 2}\n```',
        "{}",
        '{"x": NaN}',
        "[" * 9999,
    ]
    np.testing.assert_array_equal(worker.score(texts, [schema] * 5), [1, 1, 0, 0, 0])

    program = tmp_path / "check.py"
    program.write_text(
        "import json, sys; it = json.load(sys.stdin); print('log');"
        "print(0.5 if it['completion'] == it['reference'] else 'no')"
    )
    run = query(f"command:python3 {program}")
    np.testing.assert_array_equal(worker.score(["7", "8"], [run] * 2), [0.5, NAN])
