"""The order of the rows within each epoch."""

from collections.abc import Callable, Iterator

import torch
from transformers.trainer_pt_utils import get_length_grouped_indices


class EpochSampler(torch.utils.data.Sampler[int]):
    """Rows grouped by length in an order that depends on seed and epoch alone, so a resumed epoch has the
    same one.
    """

    def __init__(self, lengths: list[int], group: int, seed: int, epoch: Callable[[], int]) -> None:
        self._lengths, self._group, self._seed, self._epoch = lengths, group, seed, epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = torch.Generator().manual_seed(self._seed + self._epoch())
        return iter(get_length_grouped_indices(self._lengths, self._group, generator=random))
