"""Closeness of the answer's length to that of the expected output."""


def length_closeness_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """The shorter length over the longer one, in characters without white space at both ends: 1.0 where they are equal.

    An answer half or twice as long gets 0.5. Of use beside a reward of what the answer says, against answers that
    grow or shrink in training.
    """
    shorter, longer = sorted((len(expected_output.strip()), len(predicted_output.strip())))
    return shorter / longer if longer else 1.0
