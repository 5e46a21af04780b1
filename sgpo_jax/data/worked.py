"""Worked solutions: families whose answers are chains of steps.

A chain is computed from the prompt alone, every intermediate value passed through
`slip`. The identity gives the right chain, which is the reference; a slip that changes
a value gives the chain of someone who went wrong there and calculated on with the
wrong value. Chains have 12 to 60 characters, prompts at most 20.
"""

from collections.abc import Callable

import numpy as np

Slip = Callable[[int], int]


def exactly(value: int) -> int:
    """Return the value: the slip of a chain without errors."""
    return value


def columns(rng: np.random.Generator, level: int) -> str:
    """Draw two numbers of `level` + 1 digits to add, as in add(47,85)=."""
    a, b = (int(rng.integers(10**level, 10 ** (level + 1))) for _ in range(2))
    return f"add({a},{b})="


def work_columns(prompt: str, slip: Slip = exactly) -> str:
    """Add column by column from the right; each column shows the carry it was given.

    Example:
      >>> work_columns("add(47,85)=")
      '7+5=12,4+8+1=13,132'
    """
    first, second = prompt[4:-2].split(",")
    steps, digits, carry = [], "", 0
    for a, b in zip(reversed(first), reversed(second), strict=True):
        total = slip(int(a) + int(b) + carry)
        steps.append(f"{a}+{b}" + (f"+{carry}" if carry else "") + f"={total}")
        carry, digit = divmod(total, 10)
        digits = str(digit) + digits
    return ",".join([*steps, (str(carry) if carry else "") + digits])


def totals(rng: np.random.Generator, level: int) -> str:
    """Draw `level` + 3 numbers of one digit to add up, as in tot(7,8,5,9)=."""
    return f"tot({','.join(map(str, rng.integers(10, size=level + 3)))})="


def work_totals(prompt: str, slip: Slip = exactly) -> str:
    """Add one number after the other to the total so far.

    Example:
      >>> work_totals("tot(7,8,5,9)=")
      '7+8=15,15+5=20,20+9=29'
    """
    total, *others = map(int, prompt[4:-2].split(","))
    steps = []
    for number in others:
        new = slip(total + number)
        steps.append(f"{total}+{number}={new}")
        total = new
    return ",".join(steps)


def residue(rng: np.random.Generator, level: int) -> str:
    """Draw a number of `level` + 2 digits and a divisor from 3 to 9: res(735,4)=."""
    number = int(rng.integers(10 ** (level + 1), 10 ** (level + 2)))
    return f"res({number},{int(rng.integers(3, 10))})="


def work_residue(prompt: str, slip: Slip = exactly) -> str:
    """Divide digit by digit, keeping the remainder (Horner's rule).

    Example:
      >>> work_residue("res(735,4)=")
      '7%4=3,33%4=1,15%4=3'
    """
    number, divisor = prompt[4:-2].split(",")
    steps, remainder = [], 0
    for digit in number:
        value = 10 * remainder + int(digit)
        # A slipped remainder is still a digit, so that the chain stays short.
        remainder = slip(value % int(divisor)) % 10
        steps.append(f"{value}%{divisor}={remainder}")
    return ",".join(steps)
