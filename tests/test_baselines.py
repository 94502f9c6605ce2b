"""The baselines find what words say, and no more."""

import numpy as np
import pytest

from emissary.baselines import label_baselines, number_baselines

TEXTS = ["a red rose", "a red car", "a blue car", "a blue sky", "a blue sea"]


def test_majority_is_the_most_frequent_class_and_the_linear_model_reads_words() -> None:
    found = label_baselines(TEXTS, ["red", "red", "blue", "blue", "blue"], ["red", "a blue boat"], several=False)
    assert {name: list(labels) for name, labels in found.items()} == {
        "majority": ["blue", "blue"],
        "TF-IDF + logistic regression": ["red", "blue"],
    }


def test_several_labels_are_predicted_each_by_itself() -> None:
    marked = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [0, 0]])
    found = label_baselines(TEXTS, marked, ["red car", "blue sky"], several=True)
    assert found["majority"].tolist() == [[0, 0], [0, 0]]
    assert found["TF-IDF + logistic regression"].tolist() == [[1, 1], [0, 0]]


def test_mean_and_ridge_predict_numbers() -> None:
    found = number_baselines(TEXTS, [10.0, 10.0, 0.0, 0.0, 0.0], ["red", "blue"])
    assert list(found["mean"]) == [4, 4]
    red, blue = found["TF-IDF + ridge"]
    assert red > blue + 2
    assert pytest.approx(5, abs=5) == red
