"""How attention on a GPU cuts a step, and which attention it uses."""

import pytest

from aixcoder_serving.engine.cuda.attention import tiling, varlen_fits


@pytest.mark.parametrize(
    ("tokens", "split"),
    [(1, 512), (64, 512), (65, 2048), (256, 2048), (257, 0), (8192, 0)],
)
def test_few_tokens_are_split_over_the_context(tokens: int, split: int) -> None:
    assert tiling(tokens, group=4, head_bytes=256).split == split


@pytest.mark.parametrize("tokens", [1, 100, 1000])
@pytest.mark.parametrize("group", [1, 3, 4, 16, 17, 60])
@pytest.mark.parametrize("head_bytes", [64, 256, 320, 512, 1024])
def test_a_tile_has_whole_query_tokens_and_a_split_whole_tiles(tokens: int, group: int, head_bytes: int) -> None:
    cut = tiling(tokens, group, head_bytes)
    assert cut.rows >= max(group, 16)
    assert cut.rows & (cut.rows - 1) == 0
    assert cut.split % cut.keys == 0


@pytest.mark.parametrize(
    ("version", "block_size", "fits"),
    [
        ("2.15.0+cu132", 16, False),
        ("2.15.0+cu132", 32, False),
        ("2.15.0+cu132", 256, True),
        ("2.13.0", 512, True),
        ("2.12.1", 256, False),
        ("2.9.0", 256, False),
        ("3.0.0a0+git1", 256, True),
    ],
)
def test_varlen_fits(version: str, block_size: int, fits: bool) -> None:
    assert varlen_fits(version, block_size) is fits
