"""The process that draws questions of reasoning-gym, under a fixed hash seed.

Some generators go through sets of strings, whose order depends on the hash seed of the
process. Run as `python -m sgpo_jax.data.reasoning_gym_draw` with PYTHONHASHSEED=0: JSON
of families and configurations on standard input, a JSON line for each on the output.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from .reasoning_gym import create, entry_of, marks


def draw(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Draw all questions of a family.

    Returns:
      Entries with question, answer and metadata, None where the family's scorer does
      not accept its own answer once they have been through JSON.
    """
    data = create(family, config)
    entries = []
    for index in range(config["size"]):
        entry = json.loads(json.dumps(data[index], default=_plain))
        right = marks(data, entry["answer"], entry_of(family, entry)) == 1.0
        entries.append(entry if right else None)
    return {"entries": entries}


def _plain(value: Any) -> Any:
    """Return numpy's numbers and sets as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def main() -> None:
    """Answer the request on standard input."""
    # What the package prints is not part of the answer.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for family, config in json.load(sys.stdin):
        try:
            found = draw(family, config)
        except (ImportError, ValueError) as error:
            found = {"error": str(error), "kind": type(error).__name__}
        print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
