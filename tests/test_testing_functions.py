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


def test_similarity_of_long_texts_counts_frequent_letters() -> None:
    text = "the printer on the third floor prints every second page empty " * 8
    assert load("test_similarity_shared")("", text, text.replace("third", "first")) > 0.9
