"""Some mutations of every parser's input; `python -m benchmarks.fuzz` does 10,000."""

import dataclasses
import importlib.util

import jaxtyping
import pytest

from benchmarks.fuzz import harness
from benchmarks.fuzz.targets import TARGETS
from sgpo_jax.commands import options

COUNTS = {"command line": 12, "gguf": 20, "plan.json": 30}
NEEDS = {"gguf": "gguf", "tokenizer.json": "tokenizers"}


def unannotated(parse):
    """Refusals by annotations, which tests check, as short as others."""

    def parsed(path):
        try:
            return parse(path)
        except jaxtyping.TypeCheckError as error:
            raise ValueError(str(error)[:200]) from None

    return parsed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_no_mutation_ends_in_a_traceback_or_a_changed_number(name, tmp_path):
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"needs {NEEDS[name]}: pip install 'sgpo_jax[hf]'")
    numbers = range(COUNTS.get(name, 60))
    # Under pytest annotations are checked first; the command runs without that.
    target = dataclasses.replace(TARGETS[name], parse=unannotated(TARGETS[name].parse))
    found = harness.in_process(name, target, numbers, 1, tmp_path)
    assert found.mutations == len(numbers)
    assert not found.faults, found.examples


def test_a_damaged_column_of_a_parquet_file_does_not_end_the_process(tmp_path):
    """Mutations on which pyarrow's metadata ended it, by a C++ exception."""
    numbers = [768, 5162, 7102]
    name = "data.parquet"
    found = harness.in_process(name, TARGETS[name], numbers, 0, tmp_path)
    assert found.refused == 3, found


def test_an_argument_of_any_length_is_refused_in_a_short_line():
    for argument in ("--train" + "9" * 5000, "--pack.rows=" + "9 " * 5000):
        with pytest.raises(ValueError) as caught:
            options.experiment("run", [argument])
        assert len(str(caught.value)) < 1700


def test_a_parser_that_breaks_is_found(tmp_path):
    """Tracebacks, hangs and silent changes are counted, refusals are none."""

    def parse(path):
        text = path.read_bytes()
        if text == b"0":
            raise KeyError("0")
        if text == b"1":
            raise ValueError("refused")
        return text.decode()

    target = harness.Target(
        seeds=lambda folder: [b"2"],
        mutate=lambda data, chance, others: chance.choice([b"0", b"1", b"2", b"3"]),
        parse=parse,
        sealed=True,
    )
    found = harness.in_process("broken", target, range(200), 0, tmp_path)
    assert found.refused > 20 and found.unchanged > 20
    assert found.tracebacks > 20 and found.silent > 20
    assert found.faults == found.tracebacks + found.silent
