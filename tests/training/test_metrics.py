"""Metrics on disk: lines to read back, events to look at."""

import contextlib

from tensorboardX.proto import event_pb2

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
