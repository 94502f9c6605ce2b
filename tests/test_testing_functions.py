import ast
import asyncio
import json
import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.sandbox import run_rows
from blocks.sandbox_replies import RowScore
from emissary.data.rows import TASK_TYPES, TaskType
from emissary.errors import InvalidInput
from emissary.settings import PROJECT_ROOT
from emissary.testing_function_files import is_trusted, made_for, require_fit, shipped


@cache
def load(name: str) -> Callable[[str, str, str], float]:
    namespace: dict[str, Callable[[str, str, str], float]] = {}
    exec(shipped()[name].content, namespace)  # noqa: S102
    return namespace[name]


def in_sandbox(name: str, rows: list[tuple[str, str, str]]) -> list[RowScore]:
    return asyncio.run(run_rows(shipped()[name], rows, seconds=60, isolation="bwrap", trusted=is_trusted(name)))


ANY_TEXTS = ("same", " same ", 1.0), ("abc", "xyz", 0.0), ("\x00é\n", "\x00é", 1.0)
SAMPLES = dict.fromkeys(shipped(), ANY_TEXTS) | {
    "code_tests_shared": (("assert x == 1", "x = 1", 1.0), ("assert x == 1", "x = 2", 0.0)),
    "cosine_closeness_shared": (("0.5", " 0.5 ", 1.0), ("-1", "1", 0.0)),
    "json_schema_shared": (('{"type": "string"}', '"x"', 1.0), ('{"type": "string"}', "1", 0.0)),
    "length_closeness_shared": (("same", " same ", 1.0), ("abcd", "é", 0.25)),
    "numeric_answer_shared": (("0.5", " 0.5 ", 1.0), ("-1", "1", 0.0)),
    "regression_mae_shared": (("0.5", " 0.5 ", 0.0), ("-1", "1", 2.0)),
}
"""Rows of (expected output, predicted output, score)."""


@pytest.mark.parametrize("name", SAMPLES)
def test_a_shipped_function_scores_in_the_sandbox(name: str) -> None:
    scored = in_sandbox(name, [("\ud800", expected, predicted) for expected, predicted, _ in SAMPLES[name]])
    assert [row.score for row in scored] == [score for _, _, score in SAMPLES[name]], scored


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


@pytest.mark.parametrize(
    ("expected", "predicted"),
    [
        ("1000", "1,000"),
        ("1000", "The answer is $1,000.00."),
        ("1e3", "**1000**"),
        ("1,234,567", "1234567 people"),
        ("50", "about 50%"),
        ("€.50", "0.5"),
        ("-5", "−$5"),
        ("2", "5-2"),
        ("48/2 = 24, 48+24 = 72\n#### 72", "So 72"),
        ("3.14", "3.14159"),
        ("3.14159", "π is 3.14159"),
        ("42", r"\boxed{42}"),
        ("12345678901234567890123456789012345", "12345678901234567890123456789012345"),
    ],
)
def test_numeric_answer_takes_the_last_number_however_it_is_written(expected: str, predicted: str) -> None:
    assert load("numeric_answer_shared")("", expected, predicted) == 1.0


@pytest.mark.parametrize(
    ("expected", "predicted"),
    [
        ("42", "42 or 43"),
        ("42", "42.4"),
        ("3.14", "3.146"),
        ("3.14159", "3.14"),
        ("5", "-5"),
        ("5", "five"),
        ("2", "H2O"),
        ("3", "version 1.2.3"),
        ("1000", "1,000,5"),
        ("12345678901234567890123456789012345", "12345678901234567890123456789012346"),
        ("1234567890123456789012345678901", "1234567890123456789012345679000"),
        ("0.1234567890123456789012345678901", "0.1234567890123456789012345679000"),
        ("5", "5e2000"),
        ("1", "15e2000"),
    ],
)
def test_numeric_answer_is_no_other_number(expected: str, predicted: str) -> None:
    assert load("numeric_answer_shared")("", expected, predicted) == 0.0


@given(number=st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20))
def test_every_number_equals_itself_with_thousands_separated(number: Decimal) -> None:
    score = load("numeric_answer_shared")
    assert score("", f"{number:f}", f"It is {number:,f}, I think.") == 1.0
    assert score("", f"{number:f}", f"{number + 1:f}") == 0.0


def test_an_answer_is_json_by_its_schema() -> None:
    schema = '{"type": "object", "required": ["age"], "properties": {"age": {"type": "integer"}}}'
    score = load("json_schema_shared")
    assert score("", schema, ' {"name": "Ada", "age": 36}\n') == 1.0
    for answer in ('{"age": "36"}', "{}", "36", '{"age": 36} {"age": 36}', 'Sure: {"age": 36}', "", "[" * 100_000):
        assert score("", schema, answer) == 0.0
    assert score("", "true", "NaN") == 0.0
    nested = '{"items": {"$ref": "#"}}'
    assert (score("", nested, "[[[]]]"), score("", nested, "[" * 800 + "]" * 800)) == (1.0, 0.0)
    draft = '{"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": true}'
    assert (score("", draft, "3"), score("", draft, "4")) == (0.0, 1.0)


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_json_of_a_constant_is_that_value_however_it_is_written(value: Any) -> None:
    schema = json.dumps({"const": {"a": value, "b": 1}})
    score = load("json_schema_shared")
    assert score("", schema, json.dumps({"b": 1, "a": value}, indent=2)) == 1.0
    assert score("", schema, json.dumps({"a": value, "b": 2})) == 0.0


@pytest.mark.parametrize(
    ("pattern", "predicted", "score"),
    [
        (r"\d{4}-\d\d-\d\d", "on 2024-02-29, I think", 1.0),
        (r"\A\d{4}-\d\d-\d\d\Z", "on 2024-02-29", 0.0),
        (r"\A\d{4}-\d\d-\d\d\Z" + "\n", " 2024-02-29\n", 1.0),
        (r"(?i)\byes\b", "Yes.", 1.0),
        (r"(?i)\byes\b", "yesterday", 0.0),
        ("", "", 1.0),
    ],
)
def test_a_pattern_is_found_in_the_answer(pattern: str, predicted: str, score: float) -> None:
    assert load("regex_match_shared")("", pattern, predicted) == score


@pytest.mark.parametrize(
    ("expected", "predicted", "score"),
    [("four", " four\n", 1.0), ("four", "fo", 0.5), ("fo", "four", 0.5), ("", "a", 0.0)],
)
def test_length_is_compared_with_the_expected_one(expected: str, predicted: str, score: float) -> None:
    assert load("length_closeness_shared")("", expected, predicted) == score


@pytest.mark.parametrize(
    ("expected", "predicted", "score"),
    [
        # Lin 2004, section 3.2: three of four words in order; "the gunman" alone of the second.
        ("police killed the gunman", "Police kill the gunman.", 0.75),
        ("police killed the gunman", "the gunman kill police", 0.5),
        ("police killed the gunman", "police", 0.4),  # precision 1, recall 1/4
        ("über straße", "ÜBER STRASSE", 1.0),
        ("", "", 1.0),
        ("", "a", 0.0),
    ],
)
def test_rouge_l_is_the_f1_of_words_in_common_in_order(expected: str, predicted: str, score: float) -> None:
    assert load("rouge_l_shared")("", expected, predicted) == pytest.approx(score)


TESTS = (
    "from math import isclose\nassert add(1, 2) == 3\nassert isclose(add(0.5, 0), 0.5)\nassert add('a', 'b') == 'ab'\n"
)
GIVEN_A_CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(add)\n"
ADD = "def add(a, b):\n    return a + b\n"
ANSWERS = [
    (TESTS, ADD, 1.0),
    (TESTS, f"Here it is:\n```python\n{ADD}```\nIt adds.", 1.0),
    (TESTS, f"```\nnonsense(\n```\nor rather\n```py\n{ADD}```", 1.0),
    (TESTS, "def add(a, b):\n    return float(a) + float(b)\n", 2 / 3),
    (TESTS, "def add(a, b):\n    return 4\n", 0.0),
    (TESTS, "def plus(a, b):\n    return a + b\n", 0.0),
    (TESTS, "def add(a, b:\n", 0.0),
    (TESTS, "(" * 100_000, 0.0),
    (TESTS, ADD + "raise ValueError('no')\n", 0.0),
    (TESTS, ADD + "raise SystemExit\n", 0.0),
    (TESTS, "def add(a, b):\n    while a != 'a':\n        pass\n", 0.0),
    (TESTS, ADD + "import builtins\ndel builtins.len, builtins.isinstance, builtins.dict\n", 0.0),
    (TESTS, ADD + "import os\nos._exit(0)\n", 0.0),
    (TESTS, ADD + "sum(range(10**12))\n", 0.0),
    (TESTS, ADD + "while True:\n    print('x' * 1000)\n", 0.0),
    (TESTS, ADD + "print('x' * 2**21)\n", 1.0),
    (TESTS, ADD + "import math, sys\nmath.isclose = None\nsys.setrecursionlimit(200)\n", 2 / 3),
    (TESTS, "from dataclasses import dataclass\n\n@dataclass\nclass P:\n    x: int\n\n" + ADD, 1.0),
    (GIVEN_A_CHECK, ADD, 1.0),
    (GIVEN_A_CHECK, "def add(a, b):\n    return 4\n", 0.0),
    ("total = 0\nfor n in range(3):\n    total = add(total, n)\nassert total == 3", ADD, 1.0),
]


def test_code_gets_the_share_of_tests_that_it_passes_whatever_it_does_to_its_process() -> None:
    found = in_sandbox("code_tests_shared", [("", tests, answer) for tests, answer, _ in ANSWERS])
    assert [row.error for row in found] == [None] * len(ANSWERS)
    assert [row.score for row in found] == pytest.approx([score for _, _, score in ANSWERS])


FORGER = """
import json, os, sys
frame = sys._getframe()
while "rows" not in frame.f_locals:
    frame = frame.f_back
rows, reply = frame.f_locals["rows"], frame.f_locals["reply"]
os.set_blocking(rows.fileno(), False)
tokens = [frame.f_locals["token"], *(json.loads(line)[0] for line in rows.peek().splitlines())]
reply.write(b"".join(json.dumps({"token": token, "score": 1.0}).encode() + b"\\n" for token in tokens))
frame.f_globals["number_of"] = lambda value: 1.0
"""


def test_code_replies_for_no_other_answer() -> None:
    wrong = ADD.replace("a + b", "4")
    too_good, too_bad = (FORGER.replace("1.0", score) for score in ("500.0", "-1.0"))
    answers = (wrong, FORGER, wrong, ADD, too_good, too_bad)
    found = in_sandbox("code_tests_shared", [("", TESTS, answer) for answer in answers])
    assert [(row.score, row.error) for row in found] == [(score, None) for score in (0.0, 1.0, 0.0, 1.0, 0.0, 0.0)]


def test_a_pattern_that_backtracks_for_ever_has_no_match_and_ends_within_its_second() -> None:
    found = in_sandbox("regex_match_shared", [("", "(a+)+$", "a" * 60 + "b"), ("", "(a+)+$", "aa")])
    assert [(row.score, row.error) for row in found] == [(0.0, None), (1.0, None)]


@pytest.mark.parametrize(
    ("name", "expected", "words"),
    [
        ("numeric_answer_shared", "none", "has no number"),
        ("json_schema_shared", "{", "no JSON Schema: Expecting property name"),
        ("json_schema_shared", '{"type": "text"}', "no JSON Schema: 'text' is not valid"),
        ("json_schema_shared", '{"$ref": "#"}', "leads back to itself without end"),
        ("json_schema_shared", "[]", "no JSON Schema: a schema is an object"),
        ("regex_match_shared", "(a", "no regular expression: missing )"),
        ("code_tests_shared", "assert add(", "not Python: "),
        ("code_tests_shared", '"""Tests."""\nimport math\n', "has no tests"),
    ],
)
def test_an_expected_output_that_is_none_for_the_function_is_told_in_a_sentence(
    name: str, expected: str, words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        load(name)("", expected, "1")


def test_a_schema_leads_to_nothing_outside_it(tmp_path: Path) -> None:
    elsewhere = tmp_path / "schema.json"
    elsewhere.write_text("{}")
    with pytest.raises(ValueError, match="not whole: Unresolvable: file://"):
        load("json_schema_shared")("", json.dumps({"$ref": elsewhere.as_uri()}), "1")
    within = {"$ref": "#/$defs/number", "$defs": {"number": {"type": "number"}}}
    assert load("json_schema_shared")("", json.dumps(within), "1") == 1.0


ANY_TEXT = [
    name
    for name in shipped()
    if name not in ("regression_mae_shared", "cosine_closeness_shared", "code_tests_shared", "regex_match_shared")
]


@pytest.mark.parametrize("name", ANY_TEXT)
@given(expected=st.text(), predicted=st.text())
def test_scores_of_any_two_texts_are_between_zero_and_one(name: str, expected: str, predicted: str) -> None:
    score = load(name)
    try:
        for answer in (predicted, expected):
            assert 0 <= score("", expected, answer) <= 1
    except ValueError as error:
        assert "the expected output" in str(error)  # noqa: PT017 - what else could be scored was


def test_what_runs_code_of_the_rows_is_not_trusted_to_do_without_a_sandbox() -> None:
    assert [name for name in shipped() if not is_trusted(name)] == ["code_tests_shared"]
    assert not is_trusted("words")


def test_readme_says_which_task_each_function_is_for() -> None:
    said = dict(
        re.findall(r"^\| `(\w+_shared)` \| ([\w ,-]+) \|", (PROJECT_ROOT / "README.md").read_text(), re.MULTILINE)
    )
    for task_type in TASK_TYPES:
        fit = {
            name
            for name, tasks in said.items()
            if tasks == task_type or (tasks == "all but embedding" and task_type != "embedding")
        }
        assert set(made_for(task_type)) == fit
    assert said.keys() == shipped().keys()


@pytest.mark.parametrize(
    ("name", "task_type"),
    [
        ("regression_mae_shared", "classification"),
        ("cosine_closeness_shared", "classification"),
        ("json_schema_shared", "regression"),
        ("code_tests_shared", "classification"),
    ],
)
def test_shipped_function_that_fails_on_every_row_of_the_task_is_refused_naming_those_that_fit(
    name: str, task_type: TaskType
) -> None:
    with pytest.raises(InvalidInput) as refused:
        require_fit(["exact_match_shared", name], task_type)
    assert str(refused.value).startswith(f"test_functions[1]: {name!r} scores ")
    assert all(fit in str(refused.value) for fit in made_for(task_type))


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_functions_made_for_a_task_and_everybodys_own_are_not_refused(task_type: TaskType) -> None:
    require_fit([*made_for(task_type), "polite"], task_type)
