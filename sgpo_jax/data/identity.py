"""Identity of a set of questions by content."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .queries import Query

CHUNK = 4096  # questions hashed at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Hashes of a sequence of questions, one per part.

    Attributes:
      count: number of questions.
      ids: hash of their ids, in order, as are the others.
      prompts: of prompts and conversations.
      references: of the right answers.
      verifiers: of the verifiers' names.
      metadata: of metadata, families and levels.
    """

    count: int
    ids: str
    prompts: str
    references: str
    verifiers: str
    metadata: str

    @property
    def short(self) -> str:
        """One hash of all parts, 16 hexadecimal digits."""
        content = json.dumps(dataclasses.asdict(self)).encode()
        return hashlib.sha256(content).hexdigest()[:16]

    def difference(self, other: "Fingerprint") -> str:
        """Return what differs between two sets, as words; empty if nothing does.

        Example:
          >>> old = Query(id="q1", prompt="4+3=", reference="7")
          >>> new = dataclasses.replace(old, reference="8")
          >>> fingerprint([old]).difference(fingerprint([new]))
          'references'
          >>> fingerprint([old]).difference(fingerprint([]))
          'number of questions (1 and 0)'
        """
        if self.count != other.count:
            return f"number of questions ({self.count} and {other.count})"
        parts = dataclasses.asdict(self)
        return ", ".join(key for key in parts if parts[key] != getattr(other, key))

    def to_json(self) -> Mapping[str, Any]:
        """Return the fields as a JSON object, for a manifest; `Fingerprint(**...)`."""
        return dataclasses.asdict(self)


def fingerprint(queries: Sequence[Query]) -> Fingerprint:
    """SHA-256 of questions by part: two sets are equal if their fingerprints are.

    Order counts. Metadata is compared as JSON with sorted keys.

    Args:
      queries: the questions, as loaded.

    Raises:
      TypeError: if metadata is not plain JSON.

    Example:
      >>> one = Query(id="q1", prompt="4+3=", reference="7")
      >>> fingerprint([one]) == fingerprint([dataclasses.replace(one)])
      True
      >>> two = Query(id="q2", prompt="1+1=", reference="2")
      >>> fingerprint([one, two]) == fingerprint([two, one])
      False
    """
    return Fingerprint(
        count=len(queries),
        ids=_hash(queries, lambda query: query.id),
        prompts=_hash(queries, lambda query: query.messages or query.prompt),
        references=_hash(queries, lambda query: query.reference),
        verifiers=_hash(queries, lambda query: query.verifier),
        metadata=_hash(queries, lambda q: (q.family, q.level, dict(q.metadata))),
    )


def _hash(queries: Sequence[Query], part: Any) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(queries):
        values = [part(query) for query in chunk]
        # JSON lists end themselves, so no two sequences of chunks meet.
        digest.update(json.dumps(values, sort_keys=True).encode("ascii"))
    return digest.hexdigest()[:32]


def _chunks(queries: Sequence[Query]) -> Iterable[Sequence[Query]]:
    for start in range(0, len(queries), CHUNK):
        yield queries[start : start + CHUNK]
