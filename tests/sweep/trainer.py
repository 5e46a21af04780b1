"""A trainer whose curve is a formula: `python trainer.py OPTIONS` in place of `sgpo`.

Success rises from 0.2 with compute, most at a step size of 1e-3; above 0.1 the trainer
diverges. A step costs its rollouts; beyond 1920 it is slow, so that a trial which is
not stopped shows. SIGTERM stops it with code 42, and it goes on; so does, once, a file
`stop` in the sweep's folder.
"""

import json
import math
import pathlib
import signal
import sys
import time

RESTART = 42


def main(args: list[str]) -> None:
    given = {}
    words = iter(args)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        given[name] = value if equals else next(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(RESTART))
    rate = float(given["methods.mine.optimizer.learning-rate"])
    rollouts = int(given.get("train.rollouts", 64))
    steps, every = int(given["train.steps"]), int(given["train.eval-every"])
    folder = pathlib.Path(given["out"]) / "methods" / "mine"
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    path = folder / "metrics.jsonl"
    done = len(path.read_text().splitlines()) if path.exists() else 0
    policy = folder.parent.parent / "policy"
    policy.mkdir(exist_ok=True)
    (policy / "weights").touch()
    stop = pathlib.Path(given["out"]).parents[1] / "stop"
    with path.open("a") as file:
        for step in range(done, steps + 1):
            if step == 3 and stop.exists():
                stop.unlink()
                sys.exit(RESTART)
            if rate > 0.1 and step > 4:
                raise FloatingPointError("diverged")
            line = {"step": step}
            if step % every == 0 or step == steps:
                flops = float(step * rollouts)
                gain = 0.6 * math.exp(-((math.log10(rate) + 3) ** 2))
                success = 0.2 + gain * (1 - math.exp(-flops / 640))
                line |= {"total_flops": flops, "total_flops_repeated": flops}
                line |= {"eval/success": success, "eval/low": 0.0, "eval/high": 1.0}
            file.write(json.dumps(line) + "\n")
            file.flush()
            time.sleep(0.002 if step * rollouts <= 1920 else 1)


if __name__ == "__main__":
    main(sys.argv[1:])
