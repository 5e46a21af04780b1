"""Profiles as files and folders: finding one, and the questions beside it."""

import dataclasses
import pathlib

from sgpo_jax import data, planning
from sgpo_jax.pipeline import RunFolder, UserError
from sgpo_jax.pipeline.folder import read_json
from sgpo_jax.profiling import Profile

QUERIES = "queries.jsonl"
"""Questions beside a profile that was made without a run."""


def open_profile(place: str) -> tuple[Profile, pathlib.Path]:
    """Return a profile, and its folder.

    Args:
      place: a Parquet file, or the folder of a run or of a profile.

    Raises:
      UserError: if there is none, or it is damaged.
    """
    path = pathlib.Path(place).expanduser()
    folder = path if path.is_dir() else path.parent
    file = RunFolder(path).profile if path.is_dir() else path
    try:
        return Profile.load(file), folder
    except FileNotFoundError:
        raise UserError(
            f"there is no profile {file}; sgpo profile makes one, also from a column of"
            " pass rates: sgpo profile --import FILE --column pass_rate"
        ) from None
    except ValueError as error:
        raise UserError(f"{error}; make it again") from error


def open_plan(place: pathlib.Path, profile: Profile) -> planning.Plan:
    """Return a plan of a profile.

    Raises:
      UserError: if there is none, it is damaged, or names queries that are unknown.
    """
    try:
        return planning.Plan.load(place, ids=profile.ids)
    except (OSError, ValueError) as error:
        raise UserError(f"{error}") from None


def questions(folder: pathlib.Path, source: str = "") -> tuple[data.Query, ...]:
    """Return the questions of a profile: of a source, beside it, or of its run.

    Raises:
      UserError: if they cannot be had.
    """
    run = RunFolder(folder)
    if not source and (folder / QUERIES).exists():
        source = f"saved:{folder / QUERIES}"
    if not source and run.config.exists():
        source = str(read_json(run.config)["data"]).replace("{out}", str(folder))
    if not source:
        raise UserError(
            f"{folder} does not name the source of its questions; give --data SOURCE"
        )
    try:
        loaded = data.parse_source(source).load()
    except (OSError, ImportError, ValueError) as error:
        raise UserError(f"data {source!r}: {error}") from None
    return (*loaded.queries, *(loaded.held_out or ()))


def rows_of(profile: Profile, queries: tuple[data.Query, ...]) -> list[tuple[str, str]]:
    """Return pairs of a question's id and its id in the profile.

    They are matched by id, else by the text; what is in one of them only is left out.
    """
    by_text = {
        data.normalize(prompt): id_
        for id_, prompt in zip(profile.ids, profile.prompts, strict=True)
        if prompt
    }
    pairs = []
    for query in queries:
        known = query.id in profile.place
        id_ = query.id if known else by_text.get(data.normalize(query.prompt))
        if id_ is not None:
            pairs.append((query.id, id_))
    return pairs


def match(profile: Profile, queries: tuple[data.Query, ...]) -> tuple[data.Query, ...]:
    """Return the questions of a profile's rows, under their ids there."""
    by_id = {query.id: query for query in queries}
    return tuple(
        dataclasses.replace(by_id[own], id=id_)
        for own, id_ in rows_of(profile, queries)
    )
