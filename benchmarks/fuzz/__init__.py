"""Damage and hostile input for every parser: what is refused, accepted, or breaks.

python -m benchmarks.fuzz [--mutations 10000] [--only NAME...] [--out FILE]

Each mutation of each target runs under 10 seconds and 1 GB. A refusal is one line that
names what is wrong; anything else that is raised, a hang, a crash or a file that is
accepted with another content than was written is a fault.
"""
