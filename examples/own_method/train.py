"""Trains a small fresh policy by the method of `own.py` and prints the rewards."""

import argparse

import own

from sgpo_jax import Trainer, models


def reward(completion: str, reference: str) -> float:
    """Share of the characters that are digits, as any text can learn."""
    del reference
    return sum(character.isdigit() for character in completion) / max(
        len(completion), 1
    )


def main() -> None:
    """Train, one line a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(16)]
    with Trainer(
        models.load("tiny:layers=1,width=32"),
        own.mine(),
        rows,
        reward=reward,
        rollouts=32,
        max_response=4,
        show=False,
    ) as trainer:
        for step, metrics in enumerate(trainer.steps(steps), start=1):
            print(f"step {step}: reward {metrics['reward']:.3f}", flush=True)


if __name__ == "__main__":
    main()
