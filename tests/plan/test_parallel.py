import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.core.errors import ConfigError
from sharpen.plan import ParallelConfig

degrees = st.integers(1, 6)


@given(replicate=degrees, shard=degrees, ring=degrees, sp=degrees)
def test_the_rest_of_the_processes_shards(replicate, shard, ring, sp):
    layout = ParallelConfig(dp_replicate=replicate, ring=ring, sp=sp).layout(
        replicate * shard * ring * sp
    )
    assert (layout.dp_shard, layout.world_size) == (shard, replicate * shard * ring * sp)
    assert layout.data_ranks == replicate * shard
    assert layout.state_ranks == shard * ring * sp


@pytest.mark.parametrize(
    ("config", "world", "message"),
    [
        ({"sp": 3}, 4, "ring 1 x sp 3 is 3, which does not fit 4 processes. Start 3 or 6"),
        ({"sp": 4}, 2, "Start 4 processes"),
        ({"sp": 2, "dp_shard": 3}, 4, "dp_shard 3 is 6, which does not fit 4 processes. Start 6"),
    ],
)
def test_degrees_that_do_not_fit_name_the_nearest_that_do(config, world, message):
    with pytest.raises(ConfigError, match=message):
        ParallelConfig(**config).layout(world)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sp": 0}, "sp=0 must be at least 1"),
        ({"dp_shard": 0}, "dp_shard=0 must be at least 1, or -1"),
        ({"sp_mode": "ulysses", "ring": 2}, "needs ring=1, not 2"),
        ({"sp_mode": "ring", "sp": 2}, "needs sp=1, not 2"),
        ({"load_balance": "zigzag"}, "needs ring above 1"),
    ],
)
def test_contradictions_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        ParallelConfig(**config)


def test_a_ring_is_zigzag_unless_asked_otherwise():
    assert ParallelConfig(ring=2).zigzag
    assert not ParallelConfig(ring=2, load_balance="none").zigzag
    assert not ParallelConfig(sp=2).zigzag
