"""What needs no language model: predictions that a fine-tuned model must beat, by scikit-learn."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline


def label_baselines(
    texts: Sequence[str], marked: ArrayLike, test_texts: Sequence[str], *, several: bool
) -> dict[str, NDArray[Any]]:
    """Labels (test texts,), with `several` (test texts, labels) of 0 and 1, predicted from `texts` and `marked`.

    The most frequent class (with `several`, of each label by itself), and logistic regression on TF-IDF; that of
    several labels weighs a label's texts by how rare they are, for else it would find none.
    """
    linear = LogisticRegression(max_iter=1000, class_weight="balanced" if several else None)
    models = {
        "majority": DummyClassifier(),
        "TF-IDF + logistic regression": make_pipeline(
            TfidfVectorizer(), OneVsRestClassifier(linear) if several else linear
        ),
    }
    return {name: model.fit(texts, marked).predict(test_texts) for name, model in models.items()}


def number_baselines(texts: Sequence[str], targets: ArrayLike, test_texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Numbers (test texts,) predicted from `texts` and `targets`: their mean, and ridge regression on TF-IDF."""
    models = {"mean": DummyRegressor(), "TF-IDF + ridge": make_pipeline(TfidfVectorizer(), Ridge())}
    return {name: model.fit(texts, targets).predict(test_texts) for name, model in models.items()}
