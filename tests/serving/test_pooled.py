"""Adapters for classification, regression and embedding side by side, alone, batched and over HTTP."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from peft import LoraConfig, get_peft_model

from emissary.errors import InvalidInput, NotFound, Unavailable
from emissary.serving.adapter_task import AdapterTask
from emissary.serving.pooled import PooledModel, PooledRow
from emissary.serving.pooled_batching import PooledBatcher
from emissary.serving.server import create_engine_app
from tests.tasks.pooled_run import ENCODER, encoder_dir, new_model, outputs_of

TEXTS = ["a late goal", "bake the bread for an hour", "rain"]
TASKS = {
    "three": AdapterTask(task_type="classification", label_kind="multiclass", labels=["a", "b", "c"]),
    "two": AdapterTask(task_type="classification", label_kind="multilabel", labels=["x", "y"]),
    "price": AdapterTask(task_type="regression", target_mean=100.0, target_std=10.0),
    "pairs": AdapterTask(task_type="embedding"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, torch.Tensor]]:
    """Folders of random adapters, and what PEFT makes of TEXTS with each."""
    folders, outputs = {}, {}
    for seed, (name, task) in enumerate(TASKS.items()):
        torch.manual_seed(seed)
        head = ["score"] if task.outputs else None
        lora = LoraConfig(
            r=2 + seed,
            target_modules="all-linear",
            exclude_modules=head,
            modules_to_save=head,
            task_type="FEATURE_EXTRACTION",
        )
        model = get_peft_model(new_model(encoder_dir(), task.outputs), lora).eval()
        for key, weight in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.05)
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
        task.save(folders[name])
        found = outputs_of(model, TEXTS, encoder_dir(), task.outputs > 0)
        outputs[name] = found * task.target_std + task.target_mean
    return folders, outputs


def loaded(task_type: Any, folders: dict[str, Path]) -> PooledModel:
    model = PooledModel(encoder_dir(), task_type, torch.float32)
    for name, task in TASKS.items():
        if task.task_type == task_type:
            model.load_adapter(name, folders[name])
    return model


def test_a_mixed_batch_gives_each_row_what_peft_gives_it(saved: Any) -> None:
    folders, outputs = saved
    model = loaded("classification", folders)
    assert model.adapters == ["three", "two"]
    rows = [(name, i) for i in range(3) for name in ("three", "two")]
    found = model.run([model.row(TEXTS[i], name) for name, i in rows])
    for (name, i), output in zip(rows, found, strict=True):
        assert torch.allclose(output, outputs[name][i], atol=1e-4)
    price = loaded("regression", folders)
    (value,) = price.run([price.row(TEXTS[1], "price")])
    assert torch.allclose(value, outputs["price"][1], atol=1e-3)


def test_base_model_and_adapter_embed_side_by_side(saved: Any) -> None:
    folders, outputs = saved
    model = loaded("embedding", folders)
    rows = [model.row(text, name) for text in TEXTS for name in (None, "pairs")]
    vectors = model.run(rows)
    assert torch.allclose(torch.stack(vectors[1::2]), outputs["pairs"], atol=1e-4)
    alone = [model.run([model.row(text, None)])[0] for text in TEXTS]
    assert torch.allclose(torch.stack(vectors[::2]), torch.stack(alone), atol=1e-5)
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-2)


def test_what_does_not_fit_is_refused_and_changes_nothing(saved: Any, tmp_path: Path) -> None:
    folders, _ = saved
    model = loaded("classification", folders)
    with pytest.raises(InvalidInput, match="is for regression; this engine is for classification"):
        model.load_adapter("three", folders["price"])
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((folders["two"] / name).read_bytes())
    with pytest.raises(InvalidInput, match=r"task\.json"):
        model.load_adapter("three", tmp_path)
    TASKS["three"].save(tmp_path)
    with pytest.raises(InvalidInput, match=r"its head must be \(3, 384\), and is \(2, 384\)"):
        model.load_adapter("three", tmp_path)
    assert model.task("three").labels == ["a", "b", "c"]
    with pytest.raises(InvalidInput, match="has not learnt any classification"):
        model.row("a", None)
    with pytest.raises(NotFound, match="No adapter named 'four'"):
        model.row("a", "four")
    with pytest.raises(InvalidInput, match="a text has 302 tokens, but the model takes 256"):
        model.row("word " * 300, "three")
    assert len(model.row("word " * 300, "three", cut=True).ids) == 256


def test_requests_of_many_clients_share_batches(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("embedding", saved[0])
    sizes: list[int] = []
    run = model.run

    def counted(rows: list[PooledRow]) -> list[torch.Tensor]:
        sizes.append(len(rows))
        return run(rows)

    monkeypatch.setattr(model, "run", counted)

    async def clients() -> list[list[torch.Tensor]]:
        batcher = PooledBatcher(model)
        rows = [model.row(TEXTS[i % 3], None) for i in range(100)]
        found = await asyncio.gather(*(batcher.submit(rows[i : i + 2]) for i in range(0, 100, 2)))
        assert batcher.in_flight == 0
        batcher.close()
        with pytest.raises(Unavailable, match="shutting down"):
            await batcher.submit(rows[:1])
        return found

    found = asyncio.run(clients())
    expected = run([model.row(text, None) for text in TEXTS])
    for i, vector in enumerate(vector for pair in found for vector in pair):
        assert torch.allclose(vector, expected[i % 3], atol=1e-5)
    assert sum(sizes) == 100
    assert max(sizes) <= 64
    assert len(sizes) < 50


def test_a_batch_that_fails_is_told_to_its_requests_only(saved: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("embedding", saved[0])
    row = model.row("a", None)

    async def clients() -> None:
        batcher = PooledBatcher(model)
        with monkeypatch.context() as patch:
            patch.setattr(model, "model", None)
            with pytest.raises(Unavailable, match="failed on this batch"):
                await batcher.submit([row])
        assert len(await batcher.submit([row])) == 1
        batcher.close()

    asyncio.run(clients())


@pytest.fixture
def engines(saved: Any) -> Iterator[dict[str, TestClient]]:
    """A client of an engine for each task type."""
    clients, batchers = {}, []
    for task_type in ("classification", "regression", "embedding"):
        model = loaded(task_type, saved[0])
        batchers.append(PooledBatcher(model))
        app = create_engine_app(batchers[-1], model, base_model=ENCODER, token="secret", fetch=Path)
        for name, task in TASKS.items():
            if task.task_type == task_type:
                app.state.load(name, str(saved[0][name]))
        clients[task_type] = TestClient(app, headers={"Authorization": "Bearer secret"})
    yield clients
    for batcher in batchers:
        batcher.close()


def test_engine_answers_in_the_contracts_shapes(engines: dict[str, TestClient], saved: Any) -> None:
    _, outputs = saved
    named = {"X-Answer-As": "mine"}
    body: dict[str, Any] = {"model": "two", "input": TEXTS, "data_format": "probs"}
    answer = engines["classification"].post("/v1/classification", json=body, headers=named).json()
    assert answer["model"] == "mine"
    assert answer["data"][2]["index"] == 2
    assert list(answer["data"][2]["probs"].values()) == pytest.approx(outputs["two"][2].sigmoid().tolist(), abs=1e-4)
    assert answer["usage"]["completion_tokens"] == 0
    body = {"model": "price", "input": TEXTS[0]}
    number = float(outputs["price"][0])
    assert engines["regression"].post("/v1/regression", json=body).json()["data"] == [
        {"index": 0, "logits": pytest.approx(number, abs=1e-2)}
    ]
    assert engines["regression"].post("/v1/classification", json=body).json()["data"] == [
        {"index": 0, "logits": {"value": pytest.approx(number, abs=1e-2)}}
    ]
    body = {"model": "pairs", "input": TEXTS, "encoding_format": "base64"}
    data = engines["embedding"].post("/v1/embeddings", json=body).json()["data"]
    vectors = np.array([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in data])
    assert vectors == pytest.approx(outputs["pairs"].numpy(), abs=1e-4)
    body = {"model": "pairs", "input": TEXTS[0], "target": TEXTS[1], "cosine": False, "euclidean": True}
    compared = engines["embedding"].post("/v1/embeddings", json=body).json()
    assert set(compared["response"]) == {"input_embedding", "target_embedding", "euclidean_distance"}
    assert compared["response"]["euclidean_distance"] == pytest.approx(
        float(np.linalg.norm(vectors[0] - vectors[1])), abs=1e-4
    )


@pytest.mark.parametrize(
    ("engine", "path", "body", "words"),
    [
        ("classification", "/v1/embeddings", {"model": "three"}, "is for classification; call it by POST /v1/class"),
        ("embedding", "/v1/chat/completions", {"model": "pairs"}, "is for embedding; call it by POST /v1/embeddings"),
        ("regression", "/v1/classification", {"model": "price", "data_format": "probs"}, "has no probabilities"),
        ("classification", "/v1/classification", {"model": ENCODER}, "has not learnt any classification"),
        ("classification", "/v1/classification", {"model": "three", "input": []}, "input"),
        ("classification", "/v1/classification", {"model": "three", "data_format": "odds"}, "data_format"),
        ("embedding", "/v1/embeddings", {"model": "pairs", "input": ["a"], "target": "b"}, "input must be one text"),
        ("embedding", "/v1/embeddings", {"model": "pairs", "dimensions": 8}, "dimensions is not supported"),
        ("embedding", "/v1/embeddings", {"model": "pairs", "input": [[1, 2]]}, "input"),
    ],
)
def test_what_does_not_suit_is_refused_in_a_sentence(
    engines: dict[str, TestClient], engine: str, path: str, body: dict[str, Any], words: str
) -> None:
    answer = engines[engine].post(path, json={"input": "a"} | body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
    assert words in answer.json()["error"]
