"""The commands of `sgpo`: stages of a run, and commands without a run."""
