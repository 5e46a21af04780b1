"""Compile a run's programs for a TPU pod without having one."""
