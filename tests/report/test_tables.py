"""Tables fit a terminal without cutting a word."""

import io

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from sgpo_jax.data import Query
from sgpo_jax.ledger import Entry, Ledger
from sgpo_jax.profiling import Profile
from sgpo_jax.report import tables
from sgpo_jax.rewards import HackingSigns
from sgpo_jax.training import Evaluation

word = st.text("abcdefghij0123456789.,%", min_size=1, max_size=14)
header = st.lists(word, min_size=1, max_size=4).map(" ".join)


def shown(grid, width):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    console.print(grid.rich(width))
    return out.getvalue()


@st.composite
def grids(draw):
    columns = draw(st.lists(header, min_size=1, max_size=9))
    row = st.lists(word, min_size=len(columns), max_size=len(columns))
    return columns, draw(st.lists(row, min_size=1, max_size=4))


@example(
    cells=(
        ["000", "00 0000 00000", "000 0000", "00", "000 000 00000"],
        [["00", "00", "00", "00000000000000", "0"]],
    ),
    width=60,
)
@given(cells=grids(), width=st.sampled_from((60, 80, 120)))
@settings(max_examples=60)
def test_no_word_is_cut(cells, width):
    grid = tables.TextTable("title", *cells)
    text = shown(grid, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = text.split()
    for cell in [cell for row in grid.rows for cell in row]:
        assert cell in words
    for name in grid.columns:
        assert all(part in words for part in name.split())


def test_frequent_signs_of_hacking_are_said_with_an_example():
    def evaluated(looked_at, **examples):
        watch = HackingSigns(
            looked_at=looked_at,
            counts={sign: len(those) for sign, those in examples.items()},
            examples={sign: those for sign, those in examples.items() if those},
        )
        return Evaluation(
            rates=(1.0, 1.0), greedy=None, unscorable=0.0, cost=Entry(), watch=watch
        )

    found = {
        "initial": evaluated(100, empty=[], echo=["You ask: what"]),
        "grpo": evaluated(20, empty=[""], echo=[]),
    }
    (said,) = tables.alarms(found)
    assert said.startswith("grpo: 5.0% of rewarded completions are suspicious, empty")
    assert said.endswith("for example ''")
    grid = tables.hacking_grid(found)
    assert grid.columns == ["policy", "looked at", "empty", "echo"]
    assert grid.rows == [
        ["initial", "100", "0.0%", "1.0%"],
        ["grpo", "20", "5.0%", "0.0%"],
    ]


def test_the_ledger_is_whole_at_80_columns():
    ledger = Ledger()
    ledger.add(
        "training", Entry(flops=1.2345e13, tokens=98_765_432, rollouts=1_234_567)
    )
    grid = tables.ledger_grid({"tracked_posterior": ledger})
    text = shown(grid, 80)
    for words in ("tracked_posterior", "12345.0", "98,765,432", "1,234,567", "seconds"):
        assert words in text
    # Every table names its rows.
    assert text.count("nonzero advantage only") == text.count("method") == 2
    assert max(map(len, text.splitlines())) <= 80


def test_a_profile_without_levels_has_each_number_once():
    queries = [
        Query(id=name, prompt=name, reference="", family="sums") for name in "ab"
    ]
    found = Profile(ids=("a", "b"), samples=[8, 8], successes=[4, 2])
    grid = tables.profile_grid(found, queries)
    assert list(grid.columns) == ["family", "questions", "success", "reward"]
    assert grid.rows == [["sums", "2", "0.38", "0.38"]]
