"""Sizes of tiles: bounded memory, and no tile where all fits."""

from sharpen.models.tile_sizes import logits_tile, mlp_tile


def test_a_tile_of_logits_holds_about_64_mib() -> None:
    assert 60 << 20 <= logits_tile(49_152) * 49_152 * 4 <= 64 << 20
    assert logits_tile(10**9) == 16


def test_a_tile_is_as_long_as_the_model_is_wide_unless_all_fits() -> None:
    assert mlp_tile("auto", 4096, 10_000) == 4096
    assert mlp_tile("auto", 64, 10_000) == 1024
    assert mlp_tile("auto", 4096, 4096) == 0
    assert mlp_tile(0, 4096, 10_000) == 0
    assert mlp_tile(300, 64, 10) == 300
