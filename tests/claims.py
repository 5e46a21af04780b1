"""Tests of minutes: CI runs them in a step of its own."""

import os

import pytest

takes_minutes = pytest.mark.skipif(
    "SGPO_TEST_CLAIMS" not in os.environ,
    reason="minutes of computing: set SGPO_TEST_CLAIMS=1",
)
