"""chrF: how many character n-grams two texts share (Popović 2015, https://aclanthology.org/W15-3049)."""

from sacrebleu.metrics import CHRF

_CHRF = CHRF()


def chrf_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """F2 of the character n-grams of length 1 to 6, 0 to 1: sacreBLEU's chrF2 divided by 100."""
    return float(_CHRF.sentence_score(predicted_output, [expected_output]).score) / 100
