"""Mutations of bytes, of JSON and of command lines; the same for the same seed."""

import json
import random
from collections.abc import Sequence
from typing import Any

VALUES: Sequence[Any] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 1e308, -1e308),
    *(0.5, float("nan"), float("inf"), -float("inf"), 1e-320, "", "x", "7", "NaN"),
    *("\u2028", "\x00", "../../etc/passwd", "a" * 5000, [], [[]], {}, {"a": 1}, [1]),
    *([None], {"type": "subprocess:Popen"}, 10**5000),
)
PIECES: Sequence[bytes] = (
    *(b"\x00" * 8, b"\xff" * 8, b"NaN", b"Infinity", b"1e999", b"-", b"{", b"}", b"["),
    *(
        b"[" * 2000,
        b'"',
        b"\\ud800",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\n\n",
        b"null",
        b"9" * 40,
    ),
    *(b"9" * 5000, b"\x80", b"PAR1", b"\x1f\x8b", b"GGUF", b"true", b"1.5"),
)


def of_bytes(data: bytes, random: random.Random, others: Sequence[bytes]) -> bytes:
    """Flip, cut, drop, repeat, insert or splice; one to three times."""
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        size = len(found)
        at = random.randrange(size + 1)
        span = min(random.choice((1, 2, 4, 8, 64, 512)), size - at)
        match random.randrange(8):
            case 0 if at < size:
                found[at] ^= 1 << random.randrange(8)
            case 1:
                del found[at:]
            case 2:
                del found[at : at + span]
            case 3:
                found[at:at] = found[at : at + span]
            case 4:
                found[at:at] = random.choice(PIECES)
            case 5:
                found[at : at + span] = random.randbytes(span)
            case 6:
                other = random.choice(others) if others else data
                found[at:] = other[random.randrange(len(other) + 1) :]
            case _:
                digits = [i for i, byte in enumerate(found) if 48 <= byte < 58]
                if digits:
                    found[random.choice(digits)] = random.randrange(48, 58)
    return bytes(found)


def of_json(content: Any, random: random.Random) -> Any:
    """Change one place of a JSON value: another value, gone, twice, moved."""
    places = list(_places(content))
    if not places:
        return random.choice(VALUES)
    parent, key = random.choice(places)
    match random.randrange(6):
        case 0 if isinstance(parent, dict):
            del parent[key]
        case 1 if isinstance(parent, list):
            del parent[key]
        case 2 if isinstance(parent, list):
            parent.append(parent[key])
        case 3 if isinstance(parent, dict):
            parent[str(random.choice(VALUES[:-1]))[:50]] = parent[key]
        case 4:
            other, place = random.choice(places)
            parent[key] = json.loads(json.dumps(other[place]))
        case _:
            parent[key] = random.choice(VALUES)
    return content


def _places(content: Any):
    items = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    for key, value in items:
        yield content, key
        yield from _places(value)


def of_text_of_json(
    data: bytes, random: random.Random, others: Sequence[bytes]
) -> bytes:
    """Mutate a JSON text, half the time as bytes and half the time as a value."""
    if random.random() < 0.5:
        return of_bytes(data, random, others)
    return dumps(of_json(json.loads(data), random))


def of_json_lines(data: bytes, random: random.Random, others: Sequence[bytes]) -> bytes:
    """Mutate JSON lines as bytes, as a value of one line, or by their order."""
    if random.random() < 0.4:
        return of_bytes(data, random, others)
    lines = data.splitlines()
    at = random.randrange(len(lines))
    match random.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, random.choice(lines))
        case _:
            lines[at] = dumps(of_json(json.loads(lines[at]), random))
    return b"\n".join(lines) + b"\n"


def dumps(content: Any) -> bytes:
    """JSON text, also of whole numbers with more digits than Python prints."""
    if isinstance(content, int) and not isinstance(content, bool):
        if content.bit_length() > 10_000:
            return b"9" * 5000
    try:
        return json.dumps(content).encode("utf-8", "surrogatepass")
    except ValueError:  # a whole number of too many digits, somewhere inside
        return json.dumps(_short(content)).encode("utf-8", "surrogatepass")


def _short(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _short(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_short(value) for value in content]
    if isinstance(content, int) and content.bit_length() > 10_000:
        return 10**400
    return content


def of_words(words: Sequence[str], random: random.Random) -> list[str]:
    """Change, drop, repeat or add a word of a command line."""
    found = list(words)
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(found) + 1)
        value = str(random.choice(VALUES[:-1]))[:200]
        match random.randrange(5):
            case 0 if at < len(found):
                found[at] = value
            case 1 if at < len(found):
                del found[at]
            case 2 if at < len(found):
                found.insert(at, found[at])
            case 3 if at < len(found):
                text = of_bytes(found[at].encode(), random, ())
                found[at] = text.decode(errors="replace").replace("\0", "")
            case _:
                found.insert(at, value)
    return found
