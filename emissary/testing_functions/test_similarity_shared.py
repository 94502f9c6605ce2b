"""Similarity of two texts: how much of them is the same, in the same order."""

from difflib import SequenceMatcher


def test_similarity_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """Share of characters, 0 to 1, that the answer and the expected output have in common, in order."""
    # autojunk would take the most frequent letters of texts from 200 characters on for noise.
    return SequenceMatcher(None, expected_output.strip(), predicted_output.strip(), autojunk=False).ratio()
