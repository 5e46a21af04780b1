"""Does allocating rollouts pay: held-out success against total compute.

    python -m benchmarks.headline --testbeds strategies --seeds 0 1 --work runs/headline

Trains every method on every testbed (a preset of `sgpo run`) with every seed, from the
same initial policy and, where a method reads one, the same profile; evaluates at fixed
steps; writes benchmarks/results/headline.json, and from it headline.md and its figures.

* A run has a folder, WORK/TESTBED/METHOD/seedN; one that is finished is read, one that
  was stopped goes on. `--limit SECONDS` stops all (exit code 42: run it again).
* `--methods` takes names of `sgpo methods` or package.module:function; `controls` has
  those that take the effect apart.
* `--jobs N` runs at once, each on `--threads N` threads of the CPU; on an accelerator,
  which one process owns, leave both at their defaults. What follows `--` goes to
  `sgpo run` as it is: sizes, steps, meshes.
* `--report` makes the page from the JSON; nothing is run.
"""
