"""The `openai` package, as it is, against the running platform."""

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from emissary.client import Client
from emissary.up import Platform
from tests.jobs import ended, until
from tests.keys import make_key

MODEL = "SmolLM2-135M-Instruct"
NAME = "for-openai"
SAY_RED = [{"role": "user", "content": "Say red."}]


@pytest.fixture(scope="module")
def key(platform: Platform) -> str:
    return make_key("openai-clients")


@pytest.fixture(scope="module")
def served(platform: Platform, key: str) -> Iterator[None]:
    """The base model, deployed under a name."""
    client = Client(platform.api_url, key)
    project = client.post("/v1/projects", {"name": "openai"})["id"]
    path = f"/v1/projects/{project}/deployments"
    made = client.post(path, {"training_job_id": MODEL, "checkpoint": 0, "name": NAME})
    found = until(lambda: client.get(f"{path}/{made['id']}"), ended)
    assert found["status"] == "Deployed", found["error"]
    yield
    client.call("DELETE", f"{path}/{made['id']}")
    client.call("DELETE", f"/v1/engines/{found['engine_id']}")


@pytest.fixture(scope="module")
def ai(platform: Platform, key: str) -> OpenAI:
    return OpenAI(base_url=f"{platform.api_url}/v1", api_key=key, max_retries=0)


def test_chat_is_answered_and_streamed_alike(ai: OpenAI, served: None) -> None:
    whole = ai.chat.completions.create(model=NAME, messages=SAY_RED, max_completion_tokens=8, temperature=0, seed=1)
    assert (whole.object, whole.model, whole.choices[0].message.role) == ("chat.completion", NAME, "assistant")
    assert whole.choices[0].finish_reason in ("stop", "length")
    stream = ai.chat.completions.create(
        model=NAME,
        messages=SAY_RED,
        max_completion_tokens=8,
        temperature=0,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.choices == []
    assert last.usage == whole.usage


def test_stream_without_usage_ends_with_the_finish_reason(ai: OpenAI, served: None) -> None:
    stream = ai.chat.completions.create(model=NAME, messages=SAY_RED, max_tokens=4, temperature=0, stream=True)
    chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert {chunk.usage for chunk in chunks} == {None}


def test_text_is_continued_and_streamed_alike(ai: OpenAI, served: None) -> None:
    whole = ai.completions.create(model=NAME, prompt="Red is", max_tokens=6, temperature=0)
    assert whole.object == "text_completion"
    chunks = list(ai.completions.create(model=NAME, prompt="Red is", max_tokens=6, temperature=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_answer_ends_before_a_stop_string(ai: OpenAI, served: None) -> None:
    free = ai.completions.create(model=NAME, prompt="One, two,", max_tokens=12, temperature=0).choices[0].text
    stop = free.strip().split()[1]
    cut = ai.completions.create(model=NAME, prompt="One, two,", max_tokens=12, temperature=0, stop=[stop]).choices[0]
    assert cut.text == free[: free.index(stop)]
    assert cut.finish_reason == "stop"


def test_models_that_can_be_called_are_listed_and_retrieved(ai: OpenAI, served: None) -> None:
    models = {model.id: model for model in ai.models.list()}
    assert {MODEL, NAME} <= set(models)
    assert (models[NAME].object, models[MODEL].owned_by) == ("model", "emissary")
    assert models[NAME].created > 1_600_000_000
    assert ai.models.retrieve(NAME) == models[NAME]
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("nobody")


def test_model_list_of_the_contract_stays_for_its_header(platform: Platform, key: str) -> None:
    listed = Client(platform.api_url, key).get("/v1/models")
    assert MODEL in {entry["name"] for entry in listed}


def test_unknown_model_is_not_found_in_our_words(ai: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        ai.chat.completions.create(model="nobody", messages=SAY_RED)
    sentence = "model: there is no deployment or base model 'nobody'."
    assert raised.value.body == sentence
    assert sentence in raised.value.message
    assert raised.value.response.json()["code"] == "object_not_found"


def test_wrong_key_is_an_authentication_error(platform: Platform) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        OpenAI(base_url=f"{platform.api_url}/v1", api_key="wrong").models.list()
    assert "key" in str(raised.value.body)


@pytest.mark.parametrize(
    ("field", "value"), [("temperature", 3), ("n", 2), ("response_format", {"type": "json_object"}), ("logprobs", True)]
)
def test_bad_or_unsupported_field_is_a_bad_request_naming_it(ai: OpenAI, field: str, value: object) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        ai.chat.completions.create(model=NAME, messages=SAY_RED, **{field: value})  # type: ignore[call-overload]
    assert str(raised.value.body).startswith(f"{field}: ")
