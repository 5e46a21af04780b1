"""When a profile pays: the map of `theory.break_even`, and what runs measured.

    python -m benchmarks.break_even --work runs/headline

The map needs no run. The check compares with the runs of headline.json; it needs their
profiles once, from the folder that `python -m benchmarks.headline --work` wrote, and
keeps their counts in the JSON: without `--work` the page is made again from that.
"""
