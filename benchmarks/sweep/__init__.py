"""Does the learned sampler of `sgpo sweep` beat the others?

    python -m benchmarks.sweep --grid --train 1600 --seeds 20

`--grid` trains every setting of a grid for two methods (benchmarks/results/sweep), two
minutes of a core each; `--train STEPS` trains the learned sampler and writes the
weights that the package brings; `--seeds N` runs all samplers on functions that no
training has seen and on a table of runs, and writes benchmarks/results/sweep.json and
sweep.md. What is there is not done again. Without options the page is made from the
JSON.
"""
