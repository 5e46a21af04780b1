import json

import numpy as np
import pytest

from sgpo_jax.profiling import Profile


def make(ids, successes, samples, source=None):
    zeros = [0] * len(ids)
    return Profile(
        ids=tuple(ids),
        samples=samples,
        successes=successes,
        unscorable=zeros,
        tokens=zeros,
        truncated=zeros,
        source=source or {"policy": "p"},
    )


def test_counts_of_the_same_policy_add_up():
    first = make(["a", "b"], [1, 2], [4, 4])
    more = make(["b", "c"], [1, 0], [4, 8])
    both = first.merge(more)
    assert both.ids == ("a", "b", "c")
    np.testing.assert_array_equal(both.successes, [1, 3, 0])
    np.testing.assert_array_equal(both.samples, [4, 8, 8])
    np.testing.assert_array_equal(both.select(["c", "a"]).samples, both.samples[[2, 0]])
    with pytest.raises(ValueError, match="do not add up"):
        first.merge(make(["a"], [0], [1], {"policy": "other"}))


def test_a_profile_survives_a_file(tmp_path):
    profile = make(["a", "ü", "c"], [1, 2, 0], [4, 4, 0], {"seed": 3, "data": "x"})
    profile.save(tmp_path / "p.parquet")
    again = Profile.load(tmp_path / "p.parquet")
    assert again.ids == profile.ids
    assert again.source == profile.source
    assert again.fingerprint() == profile.fingerprint()
    assert np.isnan(again.success_rate[2])
    changed = make(["a", "ü", "c"], [1, 3, 0], [4, 4, 0], {"seed": 3, "data": "x"})
    assert changed.fingerprint() != profile.fingerprint()
    assert list(tmp_path.iterdir()) == [tmp_path / "p.parquet"]


def test_a_file_that_is_no_profile_is_refused(tmp_path):
    path = tmp_path / "p.parquet"
    path.write_text(json.dumps({"id": 1}))
    with pytest.raises(ValueError, match="is not a profile"):
        Profile.load(path)


@pytest.mark.parametrize(
    ("ids", "successes", "samples", "message"),
    [
        (["a", "a"], [0, 0], [1, 1], "twice"),
        (["a"], [2], [1], "more successes than samples"),
        (["a"], [-1], [1], "count >= 0"),
        (["a", "b"], [1], [1], "one count"),
    ],
)
def test_impossible_profiles_are_refused(ids, successes, samples, message):
    with pytest.raises(ValueError, match=message):
        make(ids, successes, samples)


def test_a_flipped_bit_is_not_read(tmp_path):
    path, count = tmp_path / "p.parquet", 200
    ids = [f"q{i}" for i in range(count)]
    made = make(ids, [i % 5 for i in range(count)], [8] * count)
    made.save(path)
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 60).tolist():
        content = bytearray(whole)
        content[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            assert Profile.load(path).fingerprint() == made.fingerprint()
        except ValueError:
            refused += 1
    assert refused > 30, "the others are in names and notes that nobody reads"


def test_a_damaged_chunk_is_made_again(tmp_path):
    from sgpo_jax.profiling import Chunks, measure
    from sgpo_jax.testing import ScriptedRollouts, tiny_queries

    def profile(source):
        chunks = Chunks(folder=tmp_path, size=4)
        return measure(
            source, None, tiny_queries(12), samples=2, chunks=chunks, source={}
        )

    first, again = ScriptedRollouts(), ScriptedRollouts()
    whole = profile(first)
    assert len(first.steps) == 3
    path = sorted(tmp_path.glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:100])
    found = profile(again)
    assert len(again.steps) == 1, "only the damaged one"
    assert found.fingerprint() == whole.fingerprint()
    assert found.cost["profiling"] == whole.cost["profiling"]
    assert Profile.load(path).cost["profiling"]["rollouts"] == 8


def test_mean_length_is_over_all_samples_scored_or_not():
    one = Profile(
        ids=("a", "b"),
        samples=[3, 0],
        successes=[1, 0],
        unscorable=[1, 0],
        tokens=[10, 0],
        truncated=[0, 0],
    )
    assert one.mean_length == {"a": 2.5}
