"""Settings of many processes that cannot work are refused before anything starts."""

import pytest

from sgpo_jax.config import Experiment, RewardConfig
from sgpo_jax.hosts import DistributedConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"process": 1}, r"must be in 0\.\.0, got 1"),
        ({"processes": 2}, "processes=2 needs coordinator"),
        ({"processes": 2, "coordinator": "host"}, "HOST:PORT or auto, got 'host'"),
        ({"heartbeat_timeout": 0}, "heartbeat_timeout must be a whole number from 1"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(ValueError, match=message):
        DistributedConfig(**settings)


def test_scoring_is_bounded_below_what_others_wait():
    slow = RewardConfig(batch_deadline=600.0)
    assert Experiment(reward=slow).reward == slow, "one process may take its time"
    with pytest.raises(ValueError, match="or raise distributed"):
        Experiment(
            reward=slow,
            distributed=DistributedConfig(coordinator="host:1", processes=2),
        )
