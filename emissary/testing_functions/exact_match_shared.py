"""Exact match: the answer is the expected one."""


def exact_match_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """1.0 where the answer equals the expected output, white space at both ends apart, else 0.0."""
    return float(predicted_output.strip() == expected_output.strip())
