"""Systematic errors: one consistent wrong way to answer each family of the mixture.

A policy that has learned such a way gives the same wrong answer again and again, so its
most likely answer is wrong and has to change; random errors leave it right. Where the
wrong way happens to give the right answer it is no error.
"""

import re


def _numbers(prompt: str) -> list[int]:
    return [int(digits) for digits in re.findall("[0-9]+", prompt)]


def _columns(prompt: str) -> list[tuple[int, int]]:
    a, b = (str(number) for number in _numbers(prompt))
    width = max(len(a), len(b))
    return [
        (int(x), int(y)) for x, y in zip(a.zfill(width), b.zfill(width), strict=True)
    ]


def without_carry(prompt: str) -> str:
    """Add digit by digit and forget every carry.

    Example:
      >>> without_carry("47+85=")
      '22'
    """
    return str(int("".join(str((a + b) % 10) for a, b in _columns(prompt))))


def without_borrowing(prompt: str) -> str:
    """Take the smaller digit from the larger in every column.

    Example:
      >>> without_borrowing("85-47=")
      '42'
    """
    return str(int("".join(str(abs(a - b)) for a, b in _columns(prompt))))


def quotient(prompt: str) -> str:
    """Divide and give the whole part instead of the remainder.

    Example:
      >>> quotient("17%5=")
      '3'
    """
    a, b = _numbers(prompt)
    return str(a // b)


def difference(prompt: str) -> str:
    """Stop Euclid's algorithm after one subtraction.

    Example:
      >>> difference("gcd(12,20)=")
      '8'
    """
    a, b = _numbers(prompt)
    return str(abs(a - b))


def zeros(prompt: str) -> str:
    """Count zeros instead of ones.

    Example:
      >>> zeros("bits(101101)=")
      '2'
    """
    return str(prompt.count("0"))


def other_letters(prompt: str) -> str:
    """Count the letters that differ from the given one.

    Example:
      >>> other_letters("count(a,abca)=")
      '2'
    """
    letter, word = prompt[6], prompt[8:-2]
    return str(len(word) - word.count(letter))


def as_it_stands(prompt: str) -> str:
    """Copy the word instead of turning it round.

    Example:
      >>> as_it_stands("rev(abc)=")
      'abc'
    """
    return prompt[4:-2]


def descending(prompt: str) -> str:
    """Sort the largest digit to the front.

    Example:
      >>> descending("sort(3142)=")
      '4321'
    """
    return "".join(sorted(prompt[5:-2], reverse=True))
