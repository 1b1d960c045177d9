"""The noise of whole rows, as the sampler adds it."""

import torch
from torch import Tensor

from aixcoder_serving.engine.noise import add_noise


def gumbel(key: Tensor, first: int, count: int) -> Tensor:
    """Of the ids `first` and after for the keys (R,): (R, count)."""
    rows = len(key)
    return torch.cat(list(add_noise(torch.zeros(rows, count), torch.ones(rows), key, first)))
