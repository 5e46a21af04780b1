"""The profile: how often a policy solves each query, as one table."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgpo_jax import theory
from sgpo_jax.profiling.columns import COLUMNS, PLACE, TEXTS, checked

_METADATA, _CHECKSUM = b"sgpo_jax", b"sgpo_jax.fingerprint"
_COST, _WHOLE = b"sgpo_jax.cost", b"sgpo_jax.whole"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """Success counts of a policy, one row per query.

    Columns are counts and sums, so profiles of the same policy add up: `merge`. What is
    not given is 0, which means unknown for lengths.

    Attributes:
      ids: query ids, distinct.
      samples: scored samples n.
      successes: samples whose reward reached the threshold, k.
      unscorable: samples that gave no reward; they are not among `samples`.
      tokens: response tokens over all samples, scored or not.
      truncated: samples cut by the token budget.
      longest: tokens of the longest response.
      prompt_tokens: tokens of the prompt.
      first_sample: index of the first sample; later ones follow without a gap.
      reward_sum: sum of rewards, which need not be 0 or 1; `successes` if not given.
      reward_squares: sum of squared rewards; likewise.
      seconds: share of the sampling and scoring time, by tokens. Not in `fingerprint`.
      prompt_hash: hash of each prompt's text, "" if unknown.
      prompts: text of each question, "" if unknown. Not in `fingerprint`, which has
        its hash.
      source: what was profiled and how (policy, sampling, verifier), as plain JSON.
      cost: what it cost, as `Ledger.to_json` writes it; of all queries that were
        sampled, also where rows are selected. Not in `fingerprint`.

    Example:
      >>> profile = Profile(ids=("easy", "hard"), samples=[8, 8], successes=[7, 0])
      >>> profile.success_rate
      array([0.875, 0.   ])
    """

    ids: tuple[str, ...]
    samples: Any
    successes: Any
    unscorable: Any = None
    tokens: Any = None
    truncated: Any = None
    longest: Any = None
    prompt_tokens: Any = None
    first_sample: Any = None
    reward_sum: Any = None
    reward_squares: Any = None
    seconds: Any = None
    prompt_hash: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    source: dict[str, object] = dataclasses.field(default_factory=dict)
    cost: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("a profile must not name a query twice")
        for name in COLUMNS:
            values = getattr(self, name)
            if values is None:
                rewards = name in ("reward_sum", "reward_squares")
                values = self.successes if rewards else np.zeros(len(self.ids))
            object.__setattr__(self, name, checked(name, values, len(self.ids)))
        if (self.successes > self.samples).any():
            raise ValueError("a query has more successes than samples")
        for name in TEXTS:
            texts = tuple(getattr(self, name)) or ("",) * len(self.ids)
            if len(texts) != len(self.ids):
                raise ValueError(f"{name} must hold one text per query")
            # What is no UTF-8 no table holds.
            texts = tuple(
                text if text.isascii() else text.encode("utf-8", "replace").decode()
                for text in texts
            )
            object.__setattr__(self, name, texts)

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Profile) and self.fingerprint() == other.fingerprint()

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    def __str__(self) -> str:
        from sgpo_jax.profiling import show

        return show.as_text(show.profile_table(self))

    @property
    def drawn(self) -> np.ndarray:
        """Samples drawn per query, scored or not."""
        return self.samples + self.unscorable

    @property
    def success_rate(self) -> np.ndarray:
        """Estimate k / n per query; NaN where nothing could be scored."""
        return _ratio(self.successes, self.samples)

    @property
    def mean_reward(self) -> np.ndarray:
        """Mean reward per query; NaN where nothing could be scored."""
        return _ratio(self.reward_sum, self.samples)

    @property
    def mean_tokens(self) -> np.ndarray:
        """Mean response length per query; NaN where nothing was sampled."""
        return _ratio(self.tokens, self.drawn)

    @property
    def mean_length(self) -> dict[str, float]:
        """Mean response length by query id, of the queries that were sampled."""
        means = zip(self.ids, self.mean_tokens.tolist(), strict=True)
        return {id_: mean for id_, mean in means if mean == mean}

    @functools.cached_property
    def place(self) -> dict[str, int]:
        """Row of each query id."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    def posterior(self, prior: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each query's Beta posterior.

        The quick form, with `prior` pseudo-counts of each kind; `Posterior` has fitted
        priors, intervals and probabilities.

        >>> one = Profile(ids=("q",), samples=[8], successes=[0])
        >>> float(one.posterior()[0].round(3)[0])
        0.056
        """
        return (
            theory.posterior_mean(self.successes, self.samples, prior=prior),
            theory.posterior_std(self.successes, self.samples, prior=prior),
        )

    def pseudo_counts(self, worth: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
        r"""Return successes and samples, discounted to what they are worth in training.

        .. math:: (k, n) \cdot \min(1, w / n)

        A profile is of the initial policy; training changes it. In this project's
        trials the full posterior of 0 out of 8 kept queries away just when they became
        solvable (held-out success on unsolvable queries .012 with it, .06 to .10
        without); there, 2 to 4 pseudo-counts are proposed, and 4 is the default. Give
        the result to `advantages.BetaTracker.init`.

        >>> one = Profile(ids=("q", "r"), samples=[8, 2], successes=[0, 1])
        >>> one.pseudo_counts()
        (array([0., 1.]), array([4., 2.]))
        """
        if not worth >= 0:
            raise ValueError(f"worth must be at least 0 pseudo-counts, got {worth}")
        keep = np.minimum(1.0, worth / np.maximum(self.samples, 1))
        return self.successes * keep, self.samples * keep

    def merge(self, other: "Profile", *, ignore: Collection[str] = ()) -> "Profile":
        """Add further samples of these queries, or further queries.

        Args:
          other: a profile of the same policy, sampling settings and verifier.
          ignore: dotted names of entries of the source that may differ; the first
            profile's are kept.

        Raises:
          ValueError: naming what differs, or the query whose samples overlap.
        """
        from sgpo_jax.profiling import merging

        return merging.merge([self, other], ignore=ignore)

    def select(self, ids: Sequence[str]) -> "Profile":
        """Return the rows of `ids`, in that order; KeyError if one is missing."""
        rows = np.array([self.place[id_] for id_ in ids], np.int64)
        return self.rows(rows)

    def rows(self, rows: np.ndarray) -> "Profile":
        """Return some rows, by number."""
        return Profile(
            ids=tuple(self.ids[row] for row in rows.tolist()),
            **{name: _some(getattr(self, name), rows) for name in TEXTS},
            source=self.source,
            cost=self.cost,
            **{name: getattr(self, name)[rows] for name in COLUMNS},
        )

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that identify the content.

        Neither the order of rows nor `seconds` nor where the queries came from counts.
        """
        source = {k: v for k, v in self.source.items() if k not in PLACE}
        order = np.argsort(np.asarray(self.ids, str), kind="stable")
        digest = hashlib.sha256(json.dumps(source, sort_keys=True).encode())
        for texts in (self.ids, self.prompt_hash):
            digest.update(json.dumps([texts[row] for row in order.tolist()]).encode())
        for name, column in COLUMNS.items():
            if column.identity:
                values = getattr(self, name)[order] + column.dtype(0)
                digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()[:16]

    def to_arrow(self) -> pa.Table:
        """Return the table, with `pass_rate` and `mean_length` worked out."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        return pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                **{name: pa.array(getattr(self, name), pa.string()) for name in TEXTS},
                "pass_rate": self.success_rate,
                "mean_length": self.mean_tokens,
                **columns,
            }
        )

    def to_pandas(self) -> Any:
        """Return the table as a pandas DataFrame; needs pandas."""
        return self.to_arrow().to_pandas()

    def plot(self, axes: Any = None) -> Any:
        """Draw the histogram of success rates; returns the matplotlib axes."""
        from sgpo_jax.profiling import show

        return show.plot_profile(self, axes)

    def _checksum(self) -> bytes:
        """Hash of what the fingerprint leaves out: costs, clocks, the order of rows."""
        note = json.dumps(
            [self.ids, self.prompts, self.source, self.cost], sort_keys=True
        )
        digest = hashlib.sha256(note.encode("utf-8", "surrogatepass"))
        digest.update(self.seconds.astype("<f8").tobytes())
        return digest.hexdigest()[:16].encode()

    def save(self, path: pathlib.Path) -> None:
        """Write a Parquet file; whole or not at all."""
        source = json.dumps(self.source, sort_keys=True).encode()
        notes = {
            _METADATA: source,
            _CHECKSUM: self.fingerprint().encode(),
            _COST: json.dumps(self.cost, sort_keys=True).encode(),
            _WHOLE: self._checksum(),
        }
        table = self.to_arrow().replace_schema_metadata(notes)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        pq.write_table(table, temporary)
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: pathlib.Path) -> "Profile":
        """Read a profile.

        Raises:
          ValueError: if the file is not a profile, or not as it was written.
        """
        try:
            table = pq.read_table(path)
            columns = {name: table.column(name).to_numpy() for name in COLUMNS}
            ids = tuple(table.column("id").to_pylist())
            texts = {name: tuple(table.column(name).to_pylist()) for name in TEXTS}
            notes = table.schema.metadata or {}
            source = json.loads(notes.get(_METADATA, b"{}"))
            cost = json.loads(notes.get(_COST, b"{}"))
            if not (isinstance(source, dict) and isinstance(cost, dict)):
                raise ValueError("its notes are no JSON objects")
            found = cls(ids=ids, source=source, cost=cost, **texts, **columns)
            as_written = notes.get(_CHECKSUM) == found.fingerprint().encode()
            as_written &= notes.get(_WHOLE, found._checksum()) == found._checksum()
        except FileNotFoundError:
            raise
        # pyarrow reports some damages as OSError.
        except (pa.ArrowException, KeyError, OSError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} is not a profile: {reason}") from error
        if not as_written:
            raise ValueError(f"{path} is not a profile as it was written (checksum)")
        worked_out = {"pass_rate": found.success_rate, "mean_length": found.mean_tokens}
        for name, values in worked_out.items():
            there = table.column(name).to_numpy() if name in table.schema.names else 0
            if not np.array_equal(there, values, equal_nan=True):
                raise ValueError(f"{path}: column {name} does not follow from the rest")
        return found


def _some(texts: Sequence[str], rows: np.ndarray) -> tuple[str, ...]:
    return tuple(texts[int(row)] for row in rows)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)
