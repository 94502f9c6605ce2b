import ast
from collections.abc import Callable

import pytest

from emissary.testing_function_files import shipped


def load(name: str) -> Callable[[str, str, str], float]:
    namespace: dict[str, Callable[[str, str, str], float]] = {}
    exec(shipped()[name].content, namespace)  # noqa: S102
    return namespace[name]


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_file_defines_exactly_one_public_function_named_like_the_file(name: str) -> None:
    body = ast.parse(shipped()[name].content).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    assert [function.name for function in functions] == [name]
    assert [argument.arg for argument in functions[0].args.args] == [
        "input_text",
        "expected_output",
        "predicted_output",
    ]


@pytest.mark.parametrize(
    ("expected", "predicted", "score"),
    [("a b", " a b\n", 1.0), ("a b", "a  b", 0.0), ("A", "a", 0.0), ("", " ", 1.0), ("é", "e", 0.0)],
)
def test_exact_match_leaves_out_white_space_at_both_ends_only(expected: str, predicted: str, score: float) -> None:
    assert load("exact_match_shared")("", expected, predicted) == score


def test_similarity_goes_from_zero_to_one() -> None:
    similarity = load("test_similarity_shared")
    assert similarity("", "abc", " abc ") == 1.0
    assert similarity("", "abc", "xyz") == 0.0
    assert similarity("", "abcd", "abxy") == 0.5
    assert similarity("", "", "") == 1.0


def test_chrf_is_sacrebleus_between_zero_and_one() -> None:
    chrf = load("chrf_shared")
    assert chrf("", "the cat sat", "the cat sat") == 1.0
    assert chrf("", "abc", "xyz") == 0.0
    assert 0 < chrf("", "the cat sat", "the cat is") < 1


@pytest.mark.parametrize(
    ("expected", "predicted", "score"),
    [
        ("sport", " sport", 1.0),
        ("sport", "food", 0.0),
        ("3", "3", 1.0),
        ('["a", "b"]', '["b", "a"]', 1.0),
        ("[]", "[]", 1.0),
        ("[]", '["a"]', 0.0),
        ('["a"]', '["a", "b"]', 1 / 3),  # not exact, F1 2/3
        ('["a", "b"]', '["b", "c"]', 0.25),
        ("[1]", "[1]", 1.0),
        ("sport", "[" * 100_000, 0.0),
    ],
)
def test_sample_match_counts_a_whole_match_and_the_labels_in_common(
    expected: str, predicted: str, score: float
) -> None:
    assert load("sample_match_combined_metric_shared")("", expected, predicted) == pytest.approx(score)


def test_similarity_of_long_texts_counts_frequent_letters() -> None:
    text = "the printer on the third floor prints every second page empty " * 8
    assert load("test_similarity_shared")("", text, text.replace("third", "first")) > 0.9
