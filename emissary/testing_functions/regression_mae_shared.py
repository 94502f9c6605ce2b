"""Absolute error of a number; its mean over the rows is the MAE."""


def regression_mae_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """How far the predicted number is from the expected one, in its unit; lower is better."""
    return abs(float(expected_output) - float(predicted_output))
