"""`sgpo profile --drift LATER`: is the order of difficulty still the profile's?"""

import dataclasses
import json

from sgpo_jax.commands import profile_files


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftOptions:
    """Compare a profile with later counts of the same questions.

    Attributes:
      drift: the later profile: another folder or file, or methods/NAME/seen.parquet of
        the run, the counts of its training.
      out: folder of the first profile; drift.json is written there.
    """

    drift: str
    out: str = "runs/default"


def run(options: DriftOptions) -> str:
    """Write drift.json; return what is printed.

    Raises:
      UserError: if a profile cannot be read.
      ValueError: if they have too few questions in common.
    """
    from sgpo_jax import planning
    from sgpo_jax.pipeline.saved import exclusive

    first, folder = profile_files.open_profile(options.out)
    later, _ = profile_files.open_profile(options.drift)
    found = planning.drift(first, later)
    content = {
        **dataclasses.asdict(found),
        "changed": found.changed,
        "pays_after": found.pays_after if found.saving > 0 else None,
    }
    path = folder / "drift.json"
    with exclusive(folder):
        path.write_text(json.dumps(content, indent=1) + "\n")
    return f"{found}\nwritten: {path}"
