"""Adding, trying, changing and deleting testing functions of one's own."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.client import ApiError, Client
from emissary.store import tables, testing_functions, users
from emissary.store.database import dispose, transaction
from emissary.store.tables import TrainingJob
from emissary.testing_function_files import shipped
from emissary.up import Platform
from tests.api.refusals import envelope
from tests.catalogue import in_catalogue

PATH = "/v1/testing-functions"
ROW = {"input_text": "Say red.", "expected_output": "red", "predicted_output": "Red"}
SIGNATURE = "(input_text: str, expected_output: str, predicted_output: str) -> float:\n    "


def source(name: str, body: str = "return float(len(predicted_output))") -> str:
    return f"def {name}{SIGNATURE}{body}\n"


def judged(**judge: Any) -> dict[str, Any]:
    """What a request says of a judge, which is of no deployment that there is."""
    return {"content": None, "judge": {"deployment_id": "manners"} | judge}


JUDGED = judged()


@pytest.fixture(scope="module")
def other(platform: Platform) -> Client:
    """A client of another organization."""

    async def make() -> str:
        async with transaction() as session:
            key = (await users.create_key(session, "competitor", "laptop", organization="competition"))[1]
        await dispose()
        return key

    return Client(platform.api_url, asyncio.run(make()))


@pytest.fixture
def length(client: Client) -> Iterator[str]:
    """The name of a function of the first organization, gone after the test."""
    client.post(PATH, {"name": "length", "content": source("length")})
    yield "length"
    client.http.delete(f"{PATH}/length")


def names(client: Client, query: str = "") -> list[str]:
    return [function["name"] for function in client.get(f"{PATH}{query}")]


def test_a_function_is_added_read_changed_and_deleted(client: Client) -> None:
    body = {"name": "brevity", "content": source("brevity"), "dependencies": ["humanize"]}
    response = client.http.post(PATH, json=body)
    assert response.status_code == 201
    added = response.json()
    assert {name: added[name] for name in body} == body
    assert added["read_only"] is False
    assert client.get(f"{PATH}/brevity") == added
    assert names(client) == ["brevity", *shipped()]
    assert ["humanize"] in in_catalogue(testing_functions.dependencies)
    content = source("brevity", "return 0.5")
    changed = client.call("PUT", f"{PATH}/brevity", json={"content": content})
    assert (changed["content"], changed["dependencies"]) == (content, [])
    assert client.post(f"{PATH}/brevity/try", {"rows": [ROW]}) == [
        {"score": 0.5, "error": None, "traceback": None, "stdout": ""}
    ]
    assert client.http.delete(f"{PATH}/brevity").status_code == 204
    envelope(client.http.get(f"{PATH}/brevity"), 404, "object_not_found")
    assert names(client) == list(shipped())


def test_reward_that_was_changed_after_a_job_began_to_learn_from_it_is_known(client: Client, length: str) -> None:
    project = client.post("/v1/projects", {"name": "rewards"})["id"]
    weights = {length: 1.0, "exact_match_shared": 0.0}

    async def changed(session: AsyncSession, before: timedelta, points: list[dict[str, Any]]) -> list[str]:
        last = await session.scalar(
            select(tables.TestingFunction.updated_at).where(tables.TestingFunction.name == length)
        )
        assert last is not None
        job = TrainingJob(
            project_id=project, reward_functions=weights, training_loss=points, started_at=last - before
        )  # fmt: skip
        return await testing_functions.changed_rewards(session, job)

    second, trained = timedelta(seconds=1), [{"step": 1}]
    for before, points, expected in ((second, trained, [length]), (second, [], []), (-second, trained, [])):
        assert in_catalogue(partial(changed, before=before, points=points)) == expected


def test_shipped_functions_are_listed_and_read_but_not_changed(client: Client) -> None:
    for function in client.get(PATH):
        assert function["read_only"]
        assert function["higher_is_better"] == (function["name"] != "regression_mae_shared")
        assert client.get(f"{PATH}/{function['name']}") == function
        for method in ("PUT", "DELETE"):
            response = client.http.request(method, f"{PATH}/{function['name']}", json={"content": "x"})
            envelope(response, 400, "read_only")


def test_pages_follow_the_names(client: Client, length: str) -> None:
    ordered = sorted([*shipped(), length])
    first = client.http.get(f"{PATH}?limit=2")
    assert [function["name"] for function in first.json()] == ordered[:2]
    assert 'rel="next"' in first.headers["link"]
    assert names(client, f"?limit=2&after={length}") == ordered[ordered.index(length) + 1 :][:2]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"content": "def bad(:"}, ["content: ", "SyntaxError", "(line 1): def bad(:"]),
        ({"content": source("good") + "\n    x ="}, ["content: ", "SyntaxError", "(line 4)"]),
        ({"content": source("good")}, ["defines no function 'bad', only 'good' (line 1)"]),
        ({"content": "def bad(a, b): return 1"}, ["parameters input_text, expected_output, predicted_output (line 1)"]),
        ({"content": source("bad", "raise ValueError('no title')")}, ["ValueError: no title (line 2)"]),
        ({"content": source("bad", "return float('nan')")}, ["finite number, not nan (line 1)"]),
        ({"content": source("bad", "return '1'")}, ["a number, not str (line 1)"]),
        ({"content": source("bad", "pass")}, ["a number, not NoneType (line 1)"]),
        ({"content": source("bad", "return open('/etc/passwd').read()")}, ["FileNotFoundError", "(line 2)"]),
        ({"content": "import numpy\n" + source("bad")}, ["No module named 'numpy' (line 1); name its package"]),
        (
            {"content": source("bad", "if predicted_output == 'blue': import torch.nn as nn\n    return 1.0")},
            ["content: the testing function 'bad' cannot import all", "No module named 'torch' (line 2); name its"],
        ),
        ({"content": source("bad", "return 1 / (predicted_output == 'red')"), "sample": ROW}, ["ZeroDivisionError"]),
        ({"content": "x = 1 #" + "x" * 65_536}, ["content: ", "at most 64 KiB, not 65543 bytes"]),
        ({"content": "x" * 2**20}, ["content: ", "at most 64 KiB, not 1048576 bytes"]),
        ({"content": "\0"}, ["content: ", "NUL"]),
        ({"content": ""}, ["content: "]),
        ({"name": "bad_shared"}, ["name: ", "'_shared'"]),
        ({"name": "exact_match_shared"}, ["name: ", "'_shared'"]),
        ({"name": "2bad"}, ["name: "]),
        ({"name": "../bad"}, ["name: "]),
        ({"name": "class"}, ["name: ", "something else"]),
        ({"name": "output"}, ["name: ", "something else"]),
        ({"name": "test_loss"}, ["name: ", "something else"]),
        ({"name": "accuracy"}, ["name: ", "something else"]),
        ({"name": "b" * 101}, ["name: "]),
        ({"dependencies": ["emissary-no-such-package-5f2"]}, ["dependencies: ", "No matching distribution"]),
        (
            {"dependencies": ["humanize", "humanize @ https://a.org/x.whl"]},
            ["dependencies.1: ", "not an address"],
        ),
        ({"dependencies": ["--pre"]}, ["dependencies.0: ", "without options"]),
        ({"dependencies": ["-r /etc/passwd"]}, ["dependencies.0: ", "without options"]),
        ({"dependencies": ["../humanize"]}, ["dependencies.0: ", "without options"]),
        ({"dependencies": ["humanize\n--pre"]}, ["dependencies.0: ", "without options"]),
        ({"dependencies": ["file:///tmp/x.whl"]}, ["dependencies.0: ", "without options"]),
        ({"dependencies": ["humanize-1.0.tar.gz"]}, ["dependencies.0: ", "must name a package, not a file"]),
        ({"dependencies": ["humanize"] * 17}, ["dependencies: "]),
        ({"sample": {"input_text": "x"}}, ["sample.expected_output: "]),
        ({"judge": {"deployment_id": "manners"}}, ["give either content or judge"]),
        ({"content": None}, ["give either content or judge"]),
        (JUDGED | {"dependencies": ["humanize"]}, ["dependencies and sample are for content"]),
        (JUDGED | {"sample": ROW}, ["dependencies and sample are for content"]),
        (JUDGED, ["judge.deployment_id: there is no deployment 'manners'."]),
        ({"content": None, "judge": {"label": "polite"}}, ["judge.deployment_id: "]),
        (judged(input="{answer}"), ["judge.input: ", "no fields but {input_text}, {expected_output}"]),
        (judged(input="polite?"), ["judge.input: ", "must contain {predicted_output}"]),
        (judged(input="{predicted_output}\0"), ["judge.input: ", "NUL"]),
        (judged(input="{predicted_output}" + "x" * 65_536), ["judge.input: ", "at most 64 KiB"]),
        (judged(label=1), ["judge.label: "]),
    ],
)
def test_a_bad_function_is_refused_in_a_sentence(client: Client, body: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ApiError) as refused:
        client.post(PATH, {"name": "bad", "content": source("bad")} | body)
    assert refused.value.status == 400, refused.value
    for word in words:
        assert word in str(refused.value)
    assert names(client) == list(shipped())


@pytest.mark.acceptance
def test_an_endless_loop_is_refused_while_the_api_answers_others(client: Client, platform: Platform) -> None:
    answers: list[httpx.Response] = []
    body = {"name": "loop", "content": source("loop", "while True: pass")}
    caller = threading.Thread(target=lambda: answers.append(client.http.post(PATH, json=body)))
    caller.start()
    slowest = 0.0
    with httpx.Client(base_url=platform.api_url, headers={"X-API-Key": platform.api_key}, trust_env=False) as http:
        while caller.is_alive():
            started = time.monotonic()
            assert http.get("/v1/models", timeout=30).is_success
            slowest = max(slowest, time.monotonic() - started)
    envelope(answers[0], 400, "invalid_input")
    assert "gives the sample row no score: the function did not score the row within 5 s" in answers[0].json()["error"]
    assert slowest < 8, "the API waited for the function"


def test_a_name_is_taken_once_and_stays(client: Client, length: str) -> None:
    with pytest.raises(ApiError, match="name: there is a testing function 'length' already"):
        client.post(PATH, {"name": length, "content": source(length)})
    with pytest.raises(ApiError, match="name: the testing function 'length' cannot be renamed"):
        client.call("PUT", f"{PATH}/{length}", json={"name": "width", "content": source("width")})
    with pytest.raises(ApiError, match=r"content: .*a number, not NoneType"):
        client.call("PUT", f"{PATH}/{length}", json={"content": source(length, "pass")})
    assert client.get(f"{PATH}/{length}")["content"] == source(length)


def test_a_repeated_request_adds_once(client: Client) -> None:
    body = {"name": "once", "content": source("once")}
    answers = [client.http.post(PATH, json=body, headers={"Idempotency-Key": "add-once"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    client.call("DELETE", f"{PATH}/once")


def test_another_organization_sees_names_and_uses_its_own_alone(client: Client, other: Client, length: str) -> None:
    assert names(other) == list(shipped())
    body = {"content": source(length)}
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/try")):
        response = other.http.request(method, f"{PATH}/{length}{path}", json={"rows": [ROW]} | body)
        envelope(response, 404, "object_not_found")
    theirs = other.post(PATH, {"name": length, "content": source(length, "return 7")})
    assert other.post(f"{PATH}/{length}/try", {"rows": [ROW]})[0]["score"] == 7.0
    assert client.get(f"{PATH}/{length}")["content"] != theirs["content"]
    project = other.post("/v1/projects", {"name": "theirs"})["id"]
    other.call("DELETE", f"{PATH}/{length}")
    files = {"file": ("rows.jsonl", b'{"prompt": "Say red.", "completion": "red"}\n' * 4)}
    dataset = other.call("POST", f"/v1/projects/{project}/datasets", files=files)["id"]
    job = {"base_model": "SmolLM2-135M-Instruct", "train_dataset_id": dataset, "test_functions": [length]}
    with pytest.raises(ApiError, match=r"test_functions\[0\] is 'length', but there is no such testing function"):
        other.post(f"/v1/projects/{project}/training-jobs", job)


@pytest.mark.parametrize("name", ["nobody", "ünder", "a b", "%00", "%F0%28"])
def test_an_unknown_function_is_not_found(client: Client, name: str) -> None:
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/try")):
        envelope(client.http.request(method, f"{PATH}/{name}{path}"), 404, "object_not_found")


def test_trying_answers_each_row_with_a_score_or_an_error(client: Client) -> None:
    body = "print('saw', predicted_output)\n    return 1 / len(predicted_output)"
    client.post(PATH, {"name": "inverse", "content": source("inverse", body)})
    rows = [ROW | {"predicted_output": text} for text in ("ab", "", "\ud800")]
    raw = json.dumps({"rows": rows})  # httpx does not send half a surrogate pair
    answers = client.call("POST", f"{PATH}/inverse/try", content=raw, headers={"Content-Type": "application/json"})
    assert [answer["score"] for answer in answers] == [0.5, None, 1.0]
    assert answers[0] == {"score": 0.5, "error": None, "traceback": None, "stdout": "saw ab\n"}
    assert answers[1]["error"] == "ZeroDivisionError: division by zero (line 3)"
    assert "line 3, in inverse\n    return 1 / len(predicted_output)\n" in answers[1]["traceback"]
    for rows in ([], [ROW] * 101, [{}], "rows"):
        envelope(client.http.post(f"{PATH}/inverse/try", json={"rows": rows}), 400, "invalid_input")
    client.call("DELETE", f"{PATH}/inverse")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("return len(open('/etc/passwd').read())", "FileNotFoundError"),
        ("import os\n    return len(os.environ['EMISSARY_DATABASE_URL'])", "KeyError"),
        ("import socket\n    socket.create_connection(('127.0.0.1', 22), 5)\n    return 1", "PermissionError"),
        ("import socket\n    socket.getaddrinfo('example.org', 80)\n    return 1", "gaierror"),
    ],
)
def test_a_tried_function_reaches_neither_files_nor_secrets_nor_the_network(
    client: Client, body: str, error: str
) -> None:
    guarded = f"if predicted_output == 'red': return 0\n    {body}"
    client.post(PATH, {"name": "spy", "content": source("spy", guarded)})
    (answer,) = client.post(f"{PATH}/spy/try", {"rows": [ROW]})
    client.call("DELETE", f"{PATH}/spy")
    assert answer["score"] is None
    assert answer["error"].startswith(error) or f".{error}" in answer["error"]


def test_a_function_that_leaves_fails_on_that_row_alone(client: Client, length: str) -> None:
    left = source(length, "if predicted_output != 'red':\n        import os; os._exit(3)\n    return 1")
    client.call("PUT", f"{PATH}/{length}", json={"content": left})
    rows = [ROW, ROW | {"predicted_output": "red"}]
    first, second = client.post(f"{PATH}/{length}/try", {"rows": rows})
    assert first["score"] is None
    assert "ended its process (status 3)" in first["error"]
    assert second["score"] == 1.0


def test_a_dependency_is_there_when_the_function_is_tried(client: Client) -> None:
    content = "from rapidfuzz.fuzz import ratio\n" + source("fuzzy", "return ratio(expected_output, predicted_output)")
    client.post(PATH, {"name": "fuzzy", "content": content, "dependencies": ["rapidfuzz>=3"]})
    (answer,) = client.post(f"{PATH}/fuzzy/try", {"rows": [ROW]})
    client.call("DELETE", f"{PATH}/fuzzy")
    assert answer["score"] == pytest.approx(200 / 3)
