"""`sgpo report` of a folder that holds a profile and no trained method."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from sgpo_jax.commands.options import parse_dataclass, take_option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportProfileOptions:
    """Write report.md, its figures, and report.html, one page.

    Attributes:
      out: the folder of the profile.
      open: show report.html in the browser.
    """

    out: str = "runs/default"
    open: bool = False


def holds_profile_only(args: Sequence[str]) -> bool:
    """Return whether the options name such a folder."""
    out = take_option(list(args), "--out", ReportProfileOptions.out)
    folder = pathlib.Path(out).expanduser()
    return (folder / "profile.parquet").exists() and not (folder / "methods").exists()


def main(args: Sequence[str]) -> int:
    """Write the report; return the exit code."""
    from sgpo_jax import report
    from sgpo_jax.commands import profile_files
    from sgpo_jax.pipeline import UserError
    from sgpo_jax.pipeline.saved import exclusive

    try:
        options = parse_dataclass(ReportProfileOptions, args, prog="sgpo report")
        folder = pathlib.Path(options.out).expanduser()
        profile, _ = profile_files.open_profile(str(folder))
        plans = {
            path.stem: profile_files.open_plan(path, profile)
            for path in [
                folder / "plan.json",
                *sorted((folder / "plans").glob("*.json")),
            ]
            if path.exists()
        }
        try:
            queries = profile_files.questions(folder)
        except UserError:
            queries = ()
        with exclusive(folder):
            path = report.write_profile(folder, profile, plans=plans, queries=queries)
    except (UserError, ValueError) as error:
        print(f"sgpo: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"sgpo: cannot write the report: {error}", file=sys.stderr)
        return 1
    print(f"{profile}\nreport: {folder / 'report.md'} and {path.name}")
    if options.open:
        report.open_page(path)
    return 0
