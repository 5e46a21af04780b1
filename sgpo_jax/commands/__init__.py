"""The commands of `sgpo`: stages of a run folder, and what stands beside runs."""
