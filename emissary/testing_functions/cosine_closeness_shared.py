"""Closeness of a pair's cosine to the similarity that it should have."""


def cosine_closeness_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """1 less half the distance of the two similarities, each -1 to 1: 1.0 where they are equal, 0.0 at its most."""
    return 1 - abs(float(expected_output) - float(predicted_output)) / 2
