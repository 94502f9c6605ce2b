"""Match of the labels of classification, also where a row may have several."""

import json


def sample_match_combined_metric_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """Mean of two scores of a row, each 0 to 1: whether its labels are exactly the expected ones, and their F1.

    A row with one label (binary, multiclass) so gets 1.0 or 0.0; where several may apply (multilabel, a JSON list of
    names), labels that are partly right count in part.
    """
    expected, predicted = _labels(expected_output), _labels(predicted_output)
    labels = len(expected) + len(predicted)
    f1 = 2 * len(expected & predicted) / labels if labels else 1.0
    return (float(expected == predicted) + f1) / 2


def _labels(text: str) -> frozenset[str]:
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return frozenset(names)
    return frozenset([text.strip()])
