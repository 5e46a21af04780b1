"""`sgpo profile --import FILE`: pass rates that were computed elsewhere."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from sgpo_jax.commands import profile_files


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileImportOptions:
    """Make a profile of a column of pass rates.

    Questions of the file are read as `--data` reads them, so that ids and splits are
    those of a run on the same file; without questions, ids are taken from a column.

    Attributes:
      source: the file, with options as in --data: FILE,prompt=question,id=uid.
      column: column of the pass rates, shares in [0, 1]; dotted names go into structs.
      samples: number of samples behind each rate, or the column that holds it. 8 is
        a cautious guess where it is unknown: it sets the width of posteriors.
      out: folder of the profile: profile.parquet, and the questions beside it.
      data: questions of a run that the rates belong to, if they are another file;
        matched by id, else by the text.
      id: column of ids, for a file without questions.
    """

    source: Annotated[str, tyro.conf.arg(name="import")]
    column: str = "pass_rate"
    samples: str = "8"
    out: str
    data: str = ""
    id: str = "id"


def run(options: ProfileImportOptions) -> str:
    """Write the profile; return what is printed.

    Raises:
      UserError: if the file cannot be read, or the folder holds another profile.
      ValueError: naming the column or the rate that is wrong.
    """
    from sgpo_jax import data
    from sgpo_jax.pipeline import RunFolder, UserError
    from sgpo_jax.pipeline.saved import exclusive
    from sgpo_jax.profiling import from_queries, read_rates, with_questions

    path = pathlib.Path(options.source.partition(",")[0]).expanduser()
    if not path.exists():
        raise UserError(f"there is no file {path}")
    count = int(options.samples) if options.samples.isdigit() else options.samples
    columns = [options.column, *([count] if isinstance(count, str) else [])]
    queries = _questions(options.source, columns)
    lines = []
    if queries is None:
        profile = read_rates(path, id=options.id, rate=options.column, samples=count)
    else:
        profile = from_queries(
            queries, rate=options.column, samples=count, source=path.name
        )
    if options.data:
        queries = profile_files.questions(path.parent, options.data)
        profile, missing = with_questions(profile, queries)
        if missing:
            lines.append(f"{missing} of {len(queries)} questions have no pass rate")
    folder = pathlib.Path(options.out).expanduser()
    target = RunFolder(folder).profile
    if target.exists():
        raise UserError(f"{folder} holds a profile already; choose another --out")
    if not profile.samples.any():
        raise UserError(f"column {options.column!r} of {path} holds no pass rate")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        if queries is not None:
            plain = tuple(dataclasses.replace(query, metadata={}) for query in queries)
            data.save_queries(folder / profile_files.QUERIES, plain)
        profile.save(target)
    return "\n".join([str(profile), *lines, f"written: {target}"])


def _questions(source: str, columns: Sequence[str]) -> Sequence[Any] | None:
    """Return the questions of a file with the columns as metadata; None without any.

    Raises:
      UserError: if a column of questions is given and cannot be read.
    """
    from sgpo_jax import data
    from sgpo_jax.pipeline import UserError

    parsed = data.parse_source(source)
    if not isinstance(parsed, data.Records):
        raise UserError(f"{source!r} has no columns; name a .jsonl or .parquet")
    try:
        parsed.load()
    except (ValueError, OSError) as error:
        if "," in source:
            raise UserError(str(error)) from None
        return None
    # The questions are sound, so what is wrong now is a column of rates.
    try:
        return dataclasses.replace(parsed, metadata=tuple(columns)).load().queries
    except ValueError as error:
        raise UserError(str(error)) from None
