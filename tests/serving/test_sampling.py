from dataclasses import dataclass

import torch

from emissary.serving.sampling import next_tokens


@dataclass
class Row:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0


LOGITS = torch.log(torch.tensor([0.05, 0.4, 0.3, 0.15, 0.1]))
DRAWS = 4000


def frequencies(row: Row) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    tokens = next_tokens(LOGITS.expand(DRAWS, -1), [row] * DRAWS, [generator] * DRAWS)
    return (tokens.bincount(minlength=5) / DRAWS).tolist()


def close(found: list[float], expected: list[float]) -> bool:
    return all(abs(a - b) < 0.03 and (a == 0) == (b == 0) for a, b in zip(found, expected, strict=True))


def test_frequencies_follow_the_probabilities() -> None:
    assert close(frequencies(Row()), [0.05, 0.4, 0.3, 0.15, 0.1])


def test_top_k_keeps_the_k_most_probable() -> None:
    assert close(frequencies(Row(top_k=2)), [0, 4 / 7, 3 / 7, 0, 0])


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    assert close(frequencies(Row(top_p=0.75)), [0, 0.4 / 0.85, 0.3 / 0.85, 0.15 / 0.85, 0])
    assert close(frequencies(Row(top_p=0.01)), [0, 1, 0, 0, 0])


def test_temperature_sharpens_and_zero_is_greedy() -> None:
    assert close(frequencies(Row(temperature=0.5)), [x / 0.285 for x in (0.0025, 0.16, 0.09, 0.0225, 0.01)])
    assert frequencies(Row(temperature=0)) == [0, 1, 0, 0, 0]
    assert frequencies(Row(temperature=1e-6)) == [0, 1, 0, 0, 0]


def test_every_row_obeys_its_own_parameters() -> None:
    rows = [Row(0), Row(top_k=1), Row(top_p=0.1), Row(top_k=2), Row(top_p=0.75), Row()]
    generators = [torch.Generator().manual_seed(i) for i in range(len(rows))]
    seen: list[set[int]] = [set() for _ in rows]
    for _ in range(300):
        for found, token in zip(seen, next_tokens(LOGITS.expand(6, -1), rows, generators).tolist(), strict=True):
            found.add(token)
    assert seen == [{1}, {1}, {1}, {1, 2}, {1, 2, 3}, {0, 1, 2, 3, 4}]


def test_a_wide_nucleus_keeps_the_wide_set() -> None:
    logits = torch.zeros(1, 2000)
    generator = torch.Generator().manual_seed(0)
    drawn = {int(next_tokens(logits, [Row(top_p=0.9)], [generator])) for _ in range(3000)}
    assert len(drawn) > 1000
