import pytest

from emissary.data.rows import fit, labels, number, problem

USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


def pair(similarity):
    return {"itemA": {"text": "a"}, "itemB": {"text": "b"}, "similarity": similarity}


@pytest.mark.parametrize(
    ("row", "task_types"),
    [
        ({"prompt": "a", "completion": "b"}, {"text-generation"}),
        ({"messages": [USER, ASSISTANT]}, {"text-generation"}),
        ({"messages": [USER, ASSISTANT], "prompt": None}, {"text-generation"}),
        ({"prompt": "a", "completion": {"x": 1, "y": 0}}, {"classification"}),
        ({"prompt": "a", "completion": {"x": 1.0, "y": False}}, {"classification"}),
        ({"prompt": "a", "completion": '{"x": 1}'}, {"text-generation", "classification"}),
        ({"prompt": "a", "completion": '{"x": 2}'}, {"text-generation"}),
        ({"prompt": "a", "completion": 3}, {"regression"}),
        ({"prompt": "a", "completion": " -3.5e2 "}, {"text-generation", "regression"}),
        ({"prompt": "a", "completion": 1e30}, {"regression"}),
        ({"prompt": "a", "completion": "1e31"}, {"text-generation"}),
        ({"prompt": "a", "completion": "1_000"}, {"text-generation"}),
        ({"prompt": "a", "completion": "nan"}, {"text-generation"}),
        (pair(-1), {"embedding"}),
        (pair("0.25"), {"embedding"}),
    ],
)
def test_row_fits_its_task_types(row, task_types):
    assert fit(row) == task_types


@pytest.mark.parametrize(
    ("row", "task_type", "reason"),
    [
        ({}, "text-generation", "it has neither 'prompt' and 'completion' nor 'messages'"),
        ({"prompt": "a"}, "text-generation", "'completion' is missing"),
        ({"prompt": "a"}, "classification", "'completion' is missing"),
        ({"prompt": "a", "completion": None}, "regression", "'completion' is missing"),
        ({"prompt": "a", "completion": " \n"}, "text-generation", "'completion' is empty"),
        ({"prompt": "a", "completion": ""}, "classification", "'completion' is empty"),
        ({"prompt": "a", "completion": {}}, "classification", "'completion' is empty"),
        ({"prompt": "a", "completion": ""}, "regression", "'completion' is empty"),
        ({"completion": "b"}, "text-generation", "'prompt' is missing"),
        ({"prompt": ["a"], "completion": "b"}, "text-generation", "'prompt' must be text, and is a list"),
        ({"prompt": "a", "completion": 3}, "text-generation", "'completion' must be text, and is a number"),
        ({"messages": {}}, "text-generation", "'messages' must be a list, and is an object"),
        ({"messages": []}, "text-generation", "'messages' is empty"),
        ({"messages": ["a"]}, "text-generation", "'messages[0]' must be an object"),
        ({"messages": [{"content": "a"}]}, "text-generation", "'messages[0].role' must be one of system"),
        ({"messages": [USER, {"role": "assistant"}]}, "text-generation", "'messages[1].content' is missing"),
        (
            {"messages": [ASSISTANT, USER]},
            "text-generation",
            "the last of 'messages' must be the assistant's",
        ),
        ({"messages": [ASSISTANT]}, "text-generation", "'messages' has no turn before the assistant's last"),
        (
            {"messages": [USER, ASSISTANT], "prompt": "a"},
            "text-generation",
            "it has both 'messages' and 'prompt'",
        ),
        ({"prompt": "a", "completion": {"x": 2}}, "classification", "must map the label 'x' to 0 or 1"),
        ({"prompt": "a", "completion": {" ": 1}}, "classification", "has the label ' ', which is no name"),
        (
            {"prompt": "a", "completion": {"\0": 1}},
            "classification",
            "has the label '\\x00', which is no name",
        ),
        ({"prompt": "a", "completion": "x"}, "classification", "and is text"),
        ({"prompt": "a", "completion": True}, "regression", "must be a number, and is true or false"),
        ({"prompt": "a", "completion": float("inf")}, "regression", "must be a number, and is not finite"),
        ({"prompt": "a", "completion": 10**400}, "regression", "must be a number, and is not finite"),
        ({"prompt": "a", "completion": 1e31}, "regression", "must be from -1e30 to 1e30, and is 1e+31"),
        ({"prompt": "a", "completion": "-1e31"}, "regression", "must be from -1e30 to 1e30, and is -1e+31"),
        ({"itemB": {"text": "b"}, "similarity": 1}, "embedding", "'itemA' is missing"),
        (
            {"itemA": "a", "similarity": 1},
            "embedding",
            "'itemA' must be an object with a 'text', and is text",
        ),
        (pair(1) | {"itemB": {"text": ""}}, "embedding", "'itemB.text' is empty"),
        (pair(None), "embedding", "'similarity' is missing"),
        (pair(""), "embedding", "'similarity' is empty"),
        (pair("high"), "embedding", "'similarity' must be a number, and is text"),
        (pair(1.5), "embedding", "'similarity' must be from -1 to 1, and is 1.5"),
    ],
)
def test_misfit_names_the_field(row, task_type, reason):
    assert reason in (problem(row, task_type) or "")


def test_text_that_says_a_number_or_labels_counts_as_such():
    assert number("1e3") == 1000.0
    assert number("1e999") is None
    assert number("0\x1f") == 0.0
    assert labels('{"x": 1, "y": 0}') == {"x": 1, "y": 0}
    assert labels('{"x": NaN}') is None
