"""How attention on a GPU cuts a step."""

import pytest

from aixcoder_serving.engine.cuda.attention import tiling


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
