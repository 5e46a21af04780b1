"""Profiles and plans: what a sample buys, choices of sets, a predictor, scale.

    python -m benchmarks.profiling [rules] [choices] [predictor] [scale] [--run FOLDER]

writes benchmarks/results/profiling.json, .md and figures; parts that are not named
keep their numbers. `choices` and `predictor` read a real profile and the initial
policy of a run folder, as `sgpo profile --profile.samples 32 --out FOLDER` leaves them;
without a folder `choices` uses simulated queries only.
"""
