import pytest
import torch
import torch.distributed as dist

import distributed
from collectives import all_collectives, broken
from sharpen.core.errors import ConfigError
from sharpen.train.comm import Axis


@pytest.mark.slow
def test_collectives_move_what_they_say_and_count_what_they_send():
    results = distributed.run(all_collectives, 3)
    for rank, found in [(rank, found) for rank, both in enumerate(results) for found in both]:
        # Rank r sends r + 1 numbers, 10 r + receiver, and an empty tensor to every other rank.
        sources = [r for r in range(3) if r != rank]
        assert found["exchange"] == [x for r in sources for x in ([10 * r + rank] * (r + 1), [])]
        assert found["grown"] == [True] * 5
        assert found["rotate"] == [float((rank - 1) % 3)] * 4
        assert found["all_gather"] == [[0, 0], [1, 2], [2, 4]]
        assert found["all_reduce"] == [6.0]
        assert found["kept"] == [float(rank + 1)]
        assert found["traffic"] == {
            "exchange": (6, 2 * (rank + 1) * 8 + 2 * 2 * 8 * 300_015),
            "rotate": (1, 4 * 8),
            "all_gather": (1, 2 * 2 * 8),
            "all_reduce": (1, 2 * 2 * 8 // 3),
        }
        assert found["bytes_sent"] == sum(sent for _, sent in found["traffic"].values())
        assert found["seconds"] > 0
        assert found["after_reset"] == 0
    assert [[found["memory"] for found in both] for both in results] == [[True, False]] * 3


@pytest.mark.slow
def test_a_rank_that_ends_is_named_by_the_collective_of_the_others():
    (error, silent, gone), outside = distributed.run(broken, 2)
    assert error.startswith("collective 3 (rotate) of axis 'ring' failed on rank 0 of 2: ")
    assert "Look at the other ranks' messages" in error
    assert silent.startswith(
        "collective 2 (exchange) of axis 'ring' failed on rank 0 of 2: rank 1 of the group said "
        "nothing for 0:00:01. Look at"
    )
    assert "collective 2 (exchange) of axis 'sp'" in gone
    assert "rank 1 of the group has ended" in gone
    assert outside == []


def test_alone_every_collective_is_free():
    axis = Axis(None)
    x = torch.arange(3.0)
    assert axis.all_gather(x).tolist() == [x.tolist()]
    total = axis.all_reduce(x)
    assert total.tolist() == x.tolist()
    assert total is not x
    assert (axis.rank, axis.size, axis.bytes_sent, axis.seconds) == (0, 1, 0, 0)
    assert repr(axis) == "Axis('sp', rank 0 of 1)"


def test_a_group_of_others_is_refused(monkeypatch):
    monkeypatch.setattr(dist, "get_rank", lambda group: -1)
    monkeypatch.setattr(dist, "get_world_size", lambda group: -1)
    with pytest.raises(ConfigError, match=r"not in the group of axis 'sp'.*mesh\['sp'\]"):
        Axis(object())  # type: ignore[arg-type]
