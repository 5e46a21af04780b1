r"""One description of a run, rendered for each way of launching it.

    python launch/render.py jobset launch/example.toml
    python launch/render.py jobset --name demo --image IMAGE --slice v5e-256 \
        --queue tpu --pvc runs -- run --out /runs/demo --mesh.fsdp 256

`jobset` and `queue` are manifests, `sky` is a task; `gcluster`, `xpk` and `tpu-vm` are
shell scripts. What is given on the command line replaces what the file says. Standard
output is all it writes: pipe it to `kubectl apply -f -`, into a file, or read it.
"""

import argparse
import dataclasses
import pathlib
import sys

import clusters
import jobset
import skypilot
import tpu_vm
from job import Job, read

KINDS = {
    "jobset": jobset.manifest,
    "queue": jobset.queue_manifest,
    "gcluster": clusters.gcluster,
    "xpk": clusters.xpk,
    "tpu-vm": tpu_vm.tpu_vm,
    "sky": skypilot.task,
}


def main(argv: list[str]) -> int:
    """Render; returns 0, or 2 on a mistake."""
    end = argv.index("--") if "--" in argv else len(argv)
    own, args = argv[:end], argv[end + 1 :]
    parser = argparse.ArgumentParser(
        prog="render.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("file", nargs="?", type=pathlib.Path, help="a TOML file")
    for field in dataclasses.fields(Job):
        if field.name != "args":
            kind = int if type(field.default) is int else str
            parser.add_argument("--" + field.name.replace("_", "-"), type=kind)
    options = vars(parser.parse_args(own))
    kind, file = options.pop("kind"), options.pop("file")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        if file is not None:
            job = read(file, given | ({"args": args} if args else {}))
        else:
            absent = [n for n in ("name", "image", "slice") if n not in given]
            if absent:
                raise ValueError(f"give a file, or --{', --'.join(absent)}")
            job = Job(args=tuple(args), **given)
        text = KINDS[kind](job)
    except ValueError as error:
        print(f"render.py: error: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
