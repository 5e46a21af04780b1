"""Metrics on disk: lines to read back, events to look at."""

import contextlib

import pytest
from tensorboardX.proto import event_pb2

from sgpo_jax.artefacts import DamagedError
from sgpo_jax.training import MetricsWriter, read_metrics


def scalars(folder):
    """Step and value of every number in the event files (TFRecords of Event)."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            at += 12 + size + 4
    return found


def test_a_new_writer_writes_lines_and_events(tmp_path):
    with contextlib.closing(MetricsWriter(tmp_path)) as writer:
        writer.write(1, {"reward": 0.5, "ledger": {}})
        writer.write(2, {"reward": 0.75})
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines == read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [1, 2]
    assert scalars(tmp_path) == [(1, "reward", 0.5), (2, "reward", 0.75)]


def test_no_metrics_are_no_lines(tmp_path):
    assert read_metrics(tmp_path) == []
    assert read_metrics(tmp_path / "nothing") == []


@pytest.fixture
def written(tmp_path):
    """Metrics of four steps."""
    with contextlib.closing(MetricsWriter(tmp_path)) as writer:
        for step in range(4):
            writer.write(step, {"reward": step / 4})
    return tmp_path / "metrics.jsonl"


def test_a_last_line_that_a_kill_has_cut_is_left_out(written):
    written.write_bytes(written.read_bytes()[:-9])
    assert [line["step"] for line in read_metrics(written)] == [0, 1, 2]


def test_lines_that_the_checkpoint_counts_must_be_there(written):
    """A file that ends behind a line looks whole: the count finds it."""
    whole = written.read_text().splitlines(keepends=True)
    written.write_text("".join(whole[:2]))
    assert len(read_metrics(written)) == 2
    with contextlib.closing(MetricsWriter(written.parent)) as writer:
        writer.rewind(2)
        with pytest.raises(DamagedError, match="2 sound lines, the checkpoint counts"):
            writer.rewind(4)


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [lines[0], lines[1], *lines[1:]],
        lambda lines: [lines[1], lines[0], *lines[2:]],
        lambda lines: [lines[0], lines[1].replace("0.25", "0.26"), *lines[2:]],
        lambda lines: [lines[0], lines[1].replace('"crc"', '"c"'), *lines[2:]],
    ],
    ids=["gone", "twice", "moved", "digit", "seal"],
)
def test_damage_between_lines_is_named(written, damage):
    written.write_text("".join(damage(written.read_text().splitlines(keepends=True))))
    with pytest.raises(DamagedError, match=r"metrics\.jsonl.* line [123]"):
        read_metrics(written)


@pytest.mark.parametrize("text", ["9" * 400, '"' + "a" * 5000 + '"', str(2**63)])
def test_a_step_that_no_run_counts_to_is_named_in_a_short_line(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": {text}}}\n')
    with pytest.raises(DamagedError, match="line 1 is damaged") as caught:
        read_metrics(tmp_path)
    assert len(str(caught.value)) < 400


def test_a_metric_beyond_floats_is_damage(tmp_path):
    line = '{"step": 1, "eval/success": ' + "1" * 400 + "}\n"
    (tmp_path / "metrics.jsonl").write_text(line)
    with pytest.raises(DamagedError, match="a whole number of 400 digits"):
        read_metrics(tmp_path)
