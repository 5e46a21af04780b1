import jax
import pytest

from sgpo_jax import models
from tests.sampling import tiny


@pytest.fixture(scope="module")
def params():
    return models.init(tiny.CONFIG, key=jax.random.key(0))


@pytest.fixture(scope="module")
def engine():
    return tiny.make_engine()
