import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from emissary.serving.batching import Batcher
from emissary.serving.generation import Generator
from emissary.serving.measuring import PROBE
from emissary.serving.server import create_engine_app

TOKEN = "engine-token"
CHAT = {
    "model": "SmolLM2-135M-Instruct",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}


@pytest.fixture
def client(generator: Generator, adapter_dirs: dict[str, Path]) -> Iterator[httpx.Client]:
    """A client of a real server on a free port that serves "red", "blue" and, as "plain", the base model."""
    batcher = Batcher(generator)
    app = create_engine_app(batcher, generator, base_model="SmolLM2-135M-Instruct", token=TOKEN, fetch=Path)
    for name, folder in adapter_dirs.items():
        app.state.load(name, str(folder))
    app.state.load("plain", None)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    with httpx.Client(
        base_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=30,
    ) as client:
        yield client
    server.should_exit = True
    thread.join()
    batcher.close()


def wait_in_flight(client: httpx.Client, count: int) -> None:
    deadline = time.monotonic() + 10
    while client.get("/health").json()["in_flight"] != count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def events(text: str) -> list[str]:
    return [block.removeprefix("data: ") for block in text.split("\n\n") if block]


def test_health_is_open_and_everything_else_is_not(client: httpx.Client) -> None:
    health = client.get("/health", headers={"Authorization": ""}).json()
    assert abs(health.pop("last_access") - time.time()) < 60
    assert health == {
        "status": "ok",
        "base_model": "SmolLM2-135M-Instruct",
        "adapters": ["blue", "red"],
        "requests": 0,
        "in_flight": 0,
    }
    for given in ("", "Bearer wrong", TOKEN, "Bearer \xff"):
        for method, path in (("POST", "/v1/chat/completions"), ("DELETE", "/adapters/red"), ("GET", "/x")):
            answer = client.request(method, path, content=b"{", headers={"Authorization": given.encode("latin1")})
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_chat_completion_has_the_contracts_shape(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT | {"unknown": 1, "top_p": None})
    assert answer.status_code == 200
    body = answer.json()
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"]) == ("chat.completion", "SmolLM2-135M-Instruct")
    assert abs(body["created"] - time.time()) < 60
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == "The capital of France is Paris."
    assert (choice["index"], choice["finish_reason"], choice["refusal"]) == (0, "stop", None)
    usage = body["usage"]
    assert (usage["completion_tokens"], usage["total_tokens"]) == (8, usage["prompt_tokens"] + 8)
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 0}
    assert {"service_tier", "system_fingerprint"} <= body.keys()
    assert client.get("/health").json()["requests"] == 1


def test_requests_to_each_name_are_counted_for_as_long_as_it_serves_the_same(
    client: httpx.Client, adapter_dirs: dict[str, Path]
) -> None:
    ask = {"prompt": "One, two,", "temperature": 0, "max_tokens": 1}
    for model, headers in (("red", {}), ("red", {}), ("blue", {}), ("red", PROBE), ("nobody", {})):
        client.post("/v1/completions", json=ask | {"model": model}, headers=headers)
    client.post("/v1/completions", json=ask | {"model": "red", "stream": True})
    client.post("/v1/completions", json=ask | {"model": "red", "prompt": "word " * 9000})
    red = client.get("/requests/red").json()
    assert (red["requests"], red["errors"], 0 < red["median_seconds"] < 30) == (3, 0, True)
    assert client.get("/requests/blue").json()["requests"] == 1
    assert client.get("/requests/nobody").status_code == 404
    client.post("/adapters", json={"name": "red", "artifact": str(adapter_dirs["blue"])})
    assert client.get("/requests/red").json() == {"requests": 0, "errors": 0, "median_seconds": None}
    assert client.get("/requests/blue").json()["requests"] == 1


def test_completion_has_the_contracts_shape(client: httpx.Client) -> None:
    request = {"model": "blue", "prompt": "The capital of France is", "temperature": 0}
    body = client.post("/v1/completions", json=request | {"max_completion_tokens": 5, "max_tokens": 9}).json()
    assert body["id"].startswith("cmpl-")
    assert (body["object"], body["model"]) == ("text_completion", "blue")
    (choice,) = body["choices"]
    assert choice.keys() == {
        "index",
        "text",
        "logprobs",
        "prompt_logprobs",
        "stop_reason",
        "finish_reason",
    }
    assert choice["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 5
    base = client.post("/v1/completions", json=request | {"model": CHAT["model"], "max_tokens": 5}).json()
    assert base["choices"][0]["text"] != choice["text"]


def test_streamed_chunks_join_to_the_whole_answer(client: httpx.Client) -> None:
    streamed = client.post(
        "/v1/chat/completions", json=CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    )
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *chunks, done = events(streamed.text)
    assert done == "[DONE]"
    first, *deltas, last, usage = map(json.loads, chunks)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in deltas)
    assert text == "The capital of France is Paris."
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 8
    assert {chunk["object"] for chunk in (first, *deltas, last, usage)} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in (first, *deltas, last, usage)}) == 1


def test_streamed_completion_chunks_carry_text(client: httpx.Client) -> None:
    request = {"model": "blue", "prompt": "One, two,", "temperature": 0, "max_tokens": 4}
    whole = client.post("/v1/completions", json=request).json()["choices"][0]["text"]
    *chunks, done = events(client.post("/v1/completions", json=request | {"stream": True}).text)
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert "".join(choice["text"] for choice in choices) == whole
    assert (choices[-1]["finish_reason"], done) == ("length", "[DONE]")


def test_clients_that_go_away_free_their_rows(client: httpx.Client) -> None:
    endless = CHAT | {
        "messages": [{"role": "user", "content": "Write a very long story."}],
        "max_tokens": 4000,
    }
    with client.stream("POST", "/v1/chat/completions", json=endless | {"stream": True}) as response:
        lines = response.iter_lines()  # kept: a dropped iterator closes the response
        next(lines)
        wait_in_flight(client, 1)
    wait_in_flight(client, 0)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json=endless, timeout=0.5)
    wait_in_flight(client, 0)


def test_adapters_are_loaded_and_unloaded(client: httpx.Client, adapter_dirs: dict[str, Path], tmp_path: Path) -> None:
    request = {"name": "green", "artifact": str(adapter_dirs["red"])}
    loaded = client.post("/adapters", json=request)
    assert (loaded.status_code, loaded.json()["adapters"]) == (201, ["blue", "green", "red"])
    assert client.post("/adapters", json=request).status_code == 201
    chat = CHAT | {"max_tokens": 4}
    answers = [client.post("/v1/chat/completions", json=chat | {"model": m}).json() for m in ("red", "green")]
    assert answers[0]["choices"] == answers[1]["choices"]
    assert client.delete("/adapters/green").status_code == 204
    for answer in (
        client.delete("/adapters/green"),
        client.post("/v1/chat/completions", json=chat | {"model": "green"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "object_not_found")
        assert "green" in answer.json()["error"]
    plain = client.post("/v1/chat/completions", json=CHAT | {"model": "plain"}).json()
    assert plain["choices"][0]["message"]["content"] == "The capital of France is Paris."
    for bad in ({"name": "x", "artifact": str(tmp_path)}, request | {"name": CHAT["model"]}, {"name": "a/b"}):
        assert client.post("/adapters", json=bad).status_code == 400
    assert client.get("/health").json()["adapters"] == ["blue", "red"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "0.5"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"stop": ["", "b"]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"model": None}, "model"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "context holds 8192"),
    ],
)
def test_bad_requests_are_refused_naming_the_field(client: httpx.Client, change: dict[str, object], word: str) -> None:
    for stream in ({}, {"stream": True}):
        answer = client.post("/v1/chat/completions", json=CHAT | stream | change)
        body = answer.json()
        assert (answer.status_code, body["status"], body["code"]) == (400, 400, "invalid_input")
        assert word in body["error"]


def test_bodies_that_are_not_json_and_unknown_routes_have_the_same_envelope(client: httpx.Client) -> None:
    for content in (b"{", b'{"model": "m", "messages": [], "temperature": NaN}', b"[]", b"\xff\xfe", b""):
        answer = client.post("/v1/chat/completions", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json().keys()) == (400, {"status", "error", "code"})
    assert client.get("/nowhere").json()["status"] == 404
    assert client.get("/v1/completions").json()["status"] == 405


def test_a_model_without_chat_template_takes_no_messages(
    client: httpx.Client, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator.tokenizer, "chat_template", None)
    answer = client.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert "no chat template" in answer.json()["error"]
