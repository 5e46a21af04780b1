"""Tables over seeds, of folders whose answers are known by hand."""

import argparse
import json

import pytest

from benchmarks import compare
from sgpo_jax.ledger import Entry
from sgpo_jax.training import Evaluation


def folder(path, initial, grpo, thin):
    """A finished run: thin spends half of the baseline's compute."""
    found = {"initial": initial, "grpo": grpo, "thin": thin}
    (path / "eval").mkdir(parents=True)
    for name, rates in found.items():
        whole = Evaluation(rates=rates, greedy=None, unscorable=0.0, cost=Entry())
        (path / f"eval/{name}.json").write_text(json.dumps(whole.to_json()))
    (path / "config.json").write_text(json.dumps({"methods": {"grpo": {}, "thin": {}}}))
    (path / "report.md").touch()
    for name, spent in (("grpo", 2e12), ("thin", 1e12)):
        (path / "methods" / name).mkdir(parents=True)
        points = [(0, 0.0, initial), (4, spent, found[name])]
        lines = [
            {
                "step": step,
                "total_flops": flops,
                "total_flops_repeated": 3 * flops,
                "eval/success": sum(rates) / len(rates),
                "eval/low": 0.0,
                "eval/high": 1.0,
            }
            for step, flops, rates in points
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / "methods" / name / "metrics.jsonl").write_text(text)


def of(path):
    return compare.seeds(argparse.Namespace(out=path, seeds=[0, 1]), [])


def test_gains_are_paired_and_pooled_over_the_questions_of_all_seeds(tmp_path):
    folder(tmp_path / "seed0", (0.2, 0.4), (0.4, 0.6), (0.4, 0.6))
    folder(tmp_path / "seed1", (0.0, 0.8), (0.1, 0.9), (0.2, 0.8))
    text = of(tmp_path)
    # Differences 0.2, 0.2, 0.1, 0.1: mean 0.15, standard error 0.0289.
    assert "| all | 0.350 | 0.500 (+0.150, +0.093 to +0.207) |" in text
    assert "| 0 | 0.300 | 0.500 (+0.200, +0.200 to +0.200) |" in text
    assert "| 1 | 2.00 | 1.00 |" in text
    assert "| thin at 90% | 2.00x | 2.00x | 2.00x | 6.00x |" in text


@pytest.mark.parametrize("after", [(0.3, 0.7), (0.0, 0.7), (0.0, 0.8)])
def test_compute_is_not_compared_without_a_gain_beyond_noise(tmp_path, after):
    folder(tmp_path / "seed0", (0.2, 0.4), (0.4, 0.6), (0.4, 0.6))
    folder(tmp_path / "seed1", (0.0, 0.8), after, (0.2, 0.8))
    text = of(tmp_path)
    assert "did not gain beyond noise with seed 1." in text and "thin at" not in text


def test_a_finished_folder_is_not_run_again(tmp_path, monkeypatch):
    (tmp_path / "report.md").touch()
    monkeypatch.setattr(compare.cli, "run_command", pytest.fail)
    assert compare.run(tmp_path, []) == tmp_path
