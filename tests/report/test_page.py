"""The report as one page: nothing outside it, and text of models is only text."""

import html.parser
import re

import hypothesis
import hypothesis.strategies as st
import pytest

from sgpo_jax.ledger import Entry
from sgpo_jax.report.samples import KINDS, samples
from sgpo_jax.report.sections import Figure, Section, Tabular, Text, markdown, page
from sgpo_jax.report.tables import TextTable
from sgpo_jax.training import Evaluation, Example


def example(query, *, solved, completion="7"):
    return Example(
        query=query,
        prompt=f"prompt of {query}",
        reference="7",
        completion=completion,
        reward=float(solved),
        solved=solved,
    )


def evaluation(*examples):
    return Evaluation(
        rates=(0.4, 0.6),
        greedy=0.5,
        unscorable=0.0,
        cost=Entry(),
        examples=examples,
    )


class Reader(html.parser.HTMLParser):
    """Tags and their attributes; text between them."""

    def __init__(self, content):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "one.png").write_bytes(b"\x89PNG")
    return tmp_path


@hypothesis.given(text=st.text())
@hypothesis.settings(
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_it_refers_to_nothing_and_shows_any_text(folder, text):
    results = {
        "initial": evaluation(example(text, solved=False, completion=text)),
        text or "name": evaluation(example(text, solved=True)),
    }
    sections = [
        Section(
            "One", [Text(text), Tabular(TextTable(text, ["a", text], [[text, "1"]]))]
        ),
        Section("Two", [Figure("one", text)]),
        Section("Three", samples(results)),
    ]
    written = Reader(page(text, sections, folder))
    assert not written.open and "script" not in written.tags
    assert all(
        link.startswith(("#", "data:image/png;base64,")) for link in written.links
    )
    assert written.tags.count("td") == 2 and written.tags.count("img") == 1


def test_markdown_and_page_say_the_same(folder):
    grid = TextTable("Title", ["policy", "success"], [["initial", "0.5"]])
    sections = [Section("One", [Text("Words."), Tabular(grid), Figure("one", "Alt")])]
    shown = Reader(page("Report", sections, folder)).text
    written = markdown("Report", sections)
    for words in ("One", "Words.", "Title", "policy", "initial", "0.5"):
        assert words in shown and words in written
    assert "](figures/one.png)" in written


def test_samples_are_sorted_by_what_training_did():
    before = [example(str(n), solved=n < 2) for n in range(4)]
    after = [example(str(n), solved=n % 2 == 0) for n in range(4)]
    found = samples({"initial": evaluation(*before), "a": evaluation(*after)})
    # Query 0 stays right, 1 is lost, 2 is learnt, 3 stays wrong.
    got = {s.heading: [q["a"].query for q in s.questions] for s in found}
    assert got == dict(zip(KINDS, (["2"], ["1"], ["3"], ["0"]), strict=True))
    assert samples({"a": evaluation(*after)}) == []


def test_evaluations_read_back_with_their_examples():
    import json

    one = evaluation(example("q", solved=True))
    assert Evaluation.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert "prompt of q" not in repr(one)
    old = one.to_json()
    del old["examples"]
    assert Evaluation.from_json(old).examples == ()


def test_the_style_has_no_address():
    from sgpo_jax.report.style import STYLE

    assert not re.search(r"url\(|@import", STYLE)


def test_open_shows_the_page_of_a_report_that_was_written(monkeypatch, tmp_path):
    import webbrowser

    from sgpo_jax import cli

    opened, code = [], 0
    monkeypatch.setattr(webbrowser, "open", lambda page: not opened.append(page))
    monkeypatch.setattr(cli, "_execute", lambda *given: code)
    asked = ["report", "--out", str(tmp_path), "--open"]
    assert cli.run_command(list(asked)) == 0
    assert opened == [(tmp_path / "report.html").as_uri()]
    assert cli.run_command([*asked, "--dry-run"]) == 0
    assert cli.run_command(asked[:-1]) == 0
    code = 1
    assert cli.run_command(list(asked)) == 1
    assert len(opened) == 1
    # Of other commands it is no option.
    assert cli.run_command(["train", "--open"]) == 2


def test_methods_are_described_to_someone_who_did_not_make_the_run():
    from sgpo_jax import methods
    from sgpo_jax.report.about import described

    for label, make in methods.ZOO.items():
        first = described(label, make())
        assert first.endswith((".", ")")) and "otherwise" not in first
        changed = make().replace(averaging=0.5, updates_per_batch=7)
        also = " Set otherwise: averaging, updates_per_batch."
        assert described(label, changed) == first + also
