"""`sgpo profile --export FORMAT`: pass rates and group sizes for other frameworks."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any, Literal

from sgpo_jax.commands import profile_files

if TYPE_CHECKING:
    import pyarrow as pa

    from sgpo_jax.planning import Plan
    from sgpo_jax.profiling import Profile


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileExportOptions:
    """Write a profile, and a plan if there is one, as a data set of another framework.

    Adds the columns pass_rate, profile_samples and, with a plan, group_size and phase.

    Attributes:
      export: layout of the data set; datasets has flat columns, same keeps those of
        the data file as they are.
      to: the file: .parquet or .jsonl.
      out: folder of a run or of a profile.
      profile: a profile elsewhere; that of the folder if empty.
      plan: a plan.json, or the folder's own if empty: plan.json, or that of a method.
      data: source of the questions, if the folder has none.
    """

    export: Literal["trl", "verl", "prime-rl", "datasets", "same"]
    to: str
    out: str = "runs/default"
    profile: str = ""
    plan: str = ""
    data: str = ""


def run(options: ProfileExportOptions) -> str:
    """Write the data set; return what is printed.

    Raises:
      UserError: if profile, plan or questions cannot be had.
    """
    from sgpo_jax.pipeline import UserError

    target = pathlib.Path(options.to).expanduser()
    if target.suffix not in (".parquet", ".jsonl"):
        raise UserError(f"--to {options.to} must end in .parquet or .jsonl")
    profile, folder = profile_files.open_profile(options.profile or options.out)
    plan = _plan(options, folder, profile)
    table = _table(options, folder, profile, plan)
    target.parent.mkdir(parents=True, exist_ok=True)
    _write(table, target)
    known = len(table) - table["pass_rate"].null_count
    return (
        f"{len(table):,} questions, {known:,} with a pass rate"
        f"{'' if plan is None else f', plan {plan.hash}'}; columns"
        f" {', '.join(table.column_names)}\nwritten: {target}"
    )


def _plan(
    options: ProfileExportOptions, folder: pathlib.Path, profile: "Profile"
) -> "Plan | None":
    if options.plan:
        return profile_files.open_plan(pathlib.Path(options.plan).expanduser(), profile)
    found = [folder / "plan.json", *sorted((folder / "plans").glob("*.json"))]
    there = [path for path in found if path.exists()]
    return profile_files.open_plan(there[0], profile) if there else None


def _table(
    options: ProfileExportOptions,
    folder: pathlib.Path,
    profile: "Profile",
    plan: "Plan | None",
) -> "pa.Table":
    from sgpo_jax import planning
    from sgpo_jax.pipeline import UserError

    if options.export == "same" or _is_verl(options):
        return _same(options, profile, plan)
    asked = profile_files.match(profile, profile_files.questions(folder, options.data))
    if not asked:
        raise UserError(
            f"none of {len(profile)} queries of the profile is among the questions;"
            " give their source with --data"
        )
    layout = options.export
    assert layout != "same"
    return planning.dataset(asked, profile, plan, layout=layout)


def _is_verl(options: ProfileExportOptions) -> bool:
    """Return whether the data are in verl's layout already, which is kept intact."""
    path = pathlib.Path(options.data.partition(",")[0]).expanduser()
    if options.export != "verl" or path.suffix != ".parquet" or not path.is_file():
        return False
    import pyarrow.parquet as pq

    return "reward_model" in pq.read_schema(path).names


def _same(
    options: ProfileExportOptions, profile: "Profile", plan: "Plan | None"
) -> "pa.Table":
    """Return the rows of the data file with columns added."""
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    from sgpo_jax import data, planning
    from sgpo_jax.pipeline import UserError

    path = pathlib.Path(options.data.partition(",")[0]).expanduser()
    if path.suffix not in (".parquet", ".jsonl") or not path.is_file():
        raise UserError(
            f"--export {options.export} adds columns to a data file: give it as --data"
            " FILE.parquet or FILE.jsonl"
        )
    try:
        loaded = data.parse_source(options.data).load()
        read: Any = pq.read_table if path.suffix == ".parquet" else pj.read_json
        table = read(path)
    except (OSError, ValueError) as error:
        raise UserError(f"data {options.data!r}: {error}") from None
    ids = [""] * len(table)
    for query in profile_files.rows_of(profile, loaded.queries):
        row = int(loaded.places[query[0]].rpartition(":")[2])
        ids[row - 1] = query[1]
    return planning.add_columns(table, ids, profile, plan)


def _write(table: "pa.Table", target: pathlib.Path) -> None:
    import json

    import pyarrow.parquet as pq

    temporary = target.with_name(f".{target.name}.tmp")
    if target.suffix == ".parquet":
        pq.write_table(table, temporary)
    else:
        with temporary.open("w") as file:
            for batch in table.to_batches(max_chunksize=4096):
                for row in batch.to_pylist():
                    file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    temporary.replace(target)
