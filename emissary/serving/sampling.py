"""The next token of every row of a batch, each by its own parameters."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Sampled(Protocol):
    """How one row picks its tokens: temperature 0 is greedy, top_p 1 and top_k 0 keep everything."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...


def next_tokens(logits: Tensor, rows: Sequence[Sampled], generators: Sequence[torch.Generator]) -> Tensor:
    """Pick a token id per row from `logits` (rows, vocabulary), float32; returns ids (rows,).

    A row draws from its own generator only, so a seed gives the same tokens whatever else is in the batch.
    """
    tokens = logits.argmax(-1)
    drawn = [i for i, row in enumerate(rows) if row.temperature > 0]
    if not drawn:
        return tokens
    logits = logits[drawn]
    # Subtracting the largest logit first keeps a temperature near 0 finite.
    scores = logits - logits.max(-1, keepdim=True).values
    scores = scores / torch.tensor([rows[i].temperature for i in drawn], device=logits.device)[:, None]
    scores = _keep_top_k(scores, torch.tensor([rows[i].top_k for i in drawn], device=logits.device))
    scores = _keep_top_p(scores, torch.tensor([rows[i].top_p for i in drawn], device=logits.device))
    # Dividing probabilities by exponential noise and taking the largest draws from them (the Gumbel-max
    # trick).
    noise = torch.empty_like(scores)
    for row, i in enumerate(drawn):
        noise[row].exponential_(generator=generators[i])
    tokens[drawn] = (scores - noise.log()).argmax(-1)
    return tokens


def _keep_top_k(scores: Tensor, top_k: Tensor) -> Tensor:
    vocabulary = scores.shape[-1]
    limit = torch.where(top_k > 0, top_k.clamp(max=vocabulary), vocabulary)
    limited = limit < vocabulary
    if not limited.any():
        return scores
    ordered = scores.topk(int(limit[limited].max())).values
    least = ordered.gather(-1, (limit.clamp(max=ordered.shape[-1]) - 1)[:, None])
    return scores.masked_fill((scores < least) & limited[:, None], float("-inf"))


def _keep_top_p(scores: Tensor, top_p: Tensor) -> Tensor:
    nucleus = (top_p < 1).nonzero().flatten()
    if not len(nucleus):
        return scores
    probabilities = scores[nucleus].softmax(-1)
    wanted = top_p[nucleus, None]
    # Most nuclei lie in the first few hundred tokens; sorting a whole vocabulary is slow.
    for width in (min(256, scores.shape[-1]), scores.shape[-1]):
        ordered = probabilities.topk(width).values
        reached = ordered.cumsum(-1)
        if bool((reached[:, -1:] >= wanted).all()):
            break
    last = (reached < wanted).sum(-1, keepdim=True).clamp(max=width - 1)
    outside = probabilities < ordered.gather(-1, last)
    scores[nucleus] = scores[nucleus].masked_fill(outside, float("-inf"))
    return scores
