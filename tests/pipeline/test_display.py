"""What a person sees at 80 columns, and what a prediction says."""

import io

import pytest
from rich.console import Console

from sgpo_jax.pipeline import Display
from sgpo_jax.testing import tiny_experiment


@pytest.mark.parametrize("width", [80, 100])
def test_method_bar_step_and_time_stay_visible(width):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None)
    with Display(console).progress("tracked_posterior", 12_000, start=28) as advance:
        advance(11_345, "reward 0.123 no signal 0.45 held-out 0.678 | " + "x" * 200)
    lines = out.getvalue().replace("\r", "\n").splitlines()
    last = [line for line in lines if "/12000" in line and "reward" in line][-1]
    plain = last.replace("\x1b[2K", "")
    assert "tracked_posterior" in plain and "11345/12000" in plain
    assert "0:00:0" in plain and "━" in plain and "reward 0.123" in plain
    assert len(plain) <= width


def test_a_prediction_names_seconds_memory_and_disk(tmp_path, capsys):
    from sgpo_jax.pipeline import open_run, predict
    from sgpo_jax.rewards import Worker

    config = tiny_experiment(str(tmp_path / "run"))
    with Worker() as worker:
        out = io.StringIO()
        display = Display(Console(file=out, width=80))
        run = open_run(config, worker, display=display)
        predict.print_prediction(run)
        assert predict.operations_per_second() > 1e6
        # State in float32: parameters, gradients, a copy and two moments at least.
        parameters, trained, moments = predict.state_bytes(run)
        assert predict.memory(run) > parameters + trained + moments
        assert predict.disk(run) > 3 * 3 * (parameters + moments)
    said = " ".join(out.getvalue().split())
    assert " s of sampling" in said and "of memory" in said and "of disk" in said
