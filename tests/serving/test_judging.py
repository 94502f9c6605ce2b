"""Judges ask a real engine's server, of a classifier or a regression with random weights."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch
import uvicorn
from peft import LoraConfig, get_peft_model

from blocks.sandbox_replies import RowScore
from emissary.errors import Unavailable
from emissary.judges import Judge, JudgeFunction
from emissary.secret_files import signing_key
from emissary.serving import judging
from emissary.serving.adapter_task import AdapterTask
from emissary.serving.pooled import PooledModel
from emissary.serving.pooled_batching import PooledBatcher
from emissary.serving.server import create_engine_app
from emissary.serving.token import engine_token
from emissary.settings import settings
from emissary.store.tables import Engine
from tests.conftest import free_port
from tests.own_home import own_home
from tests.tasks.pooled_run import ENCODER, encoder_dir, new_model

TASKS = {
    "manners": AdapterTask(task_type="classification", label_kind="multiclass", labels=["polite", "rude"]),
    "price": AdapterTask(task_type="regression", target_mean=100.0, target_std=10.0),
}
POLITE = JudgeFunction(name="polite", judge=Judge(deployment_id="manners", label="polite"))
PRICE = JudgeFunction(name="price", judge=Judge(deployment_id="price", input="{input_text}: {predicted_output}"))


@pytest.fixture(scope="module", autouse=True)
def home() -> Iterator[None]:
    with own_home():
        yield


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of random adapters, one for each task."""
    folders = {}
    for name, task in TASKS.items():
        torch.manual_seed(3)
        lora = LoraConfig(
            r=2,
            target_modules="all-linear",
            exclude_modules=["score"],
            modules_to_save=["score"],
            task_type="FEATURE_EXTRACTION",
        )
        folders[name] = tmp_path_factory.mktemp(name)
        get_peft_model(new_model(encoder_dir(), task.outputs), lora).save_pretrained(folders[name])
        task.save(folders[name])
    return folders


class Served:
    """An engine's row, and how many texts each forward pass of its model had."""

    def __init__(self, port: int) -> None:
        self.engine = Engine(id="engine-1", status="Active", endpoint=f"http://127.0.0.1:{port}")
        self.passes: list[int] = []


@asynccontextmanager
async def serving(name: str, folder: Path, port: int) -> AsyncIterator[tuple[Served, PooledModel]]:
    served, model = Served(port), PooledModel(encoder_dir(), TASKS[name].task_type, torch.float32)
    run = model.run
    model.run = lambda rows: served.passes.append(len(rows)) or run(rows)  # type: ignore[method-assign,func-returns-value]
    batcher = PooledBatcher(model)
    token = engine_token(signing_key(settings()).get_secret_value(), "engine-1")
    app = create_engine_app(batcher, model, base_model=ENCODER, token=token, fetch=Path)
    app.state.load(name, str(folder))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield served, model
        finally:
            server.should_exit = True
            await running
            batcher.close()


def row(answer: str) -> tuple[str, str, str]:
    return ("asked", "wanted", answer)


def test_score_is_the_labels_probability_and_a_text_is_asked_once(adapters: dict[str, Path]) -> None:
    async def run() -> tuple[list[RowScore], list[float], list[int]]:
        async with serving("manners", adapters["manners"], free_port()) as (served, model):
            texts = [f"please {number}" for number in range(70)]

            async def ready(_seconds: float) -> Engine:
                return served.engine

            scores = await judging.scores(POLITE, [row(text) for text in texts + texts], ready, patience=10)
            passes = list(served.passes)
            outputs = model.run([model.row(text, "manners") for text in texts])
            return scores, [float(TASKS["manners"].probabilities(output)[0]) for output in outputs], passes

    scores, expected, passes = asyncio.run(run())
    assert [score.score for score in scores[:70]] == pytest.approx(expected, abs=1e-5)
    assert scores[:70] == scores[70:]
    assert len(set(expected)) > 1
    assert passes == [64, 6]


def test_texts_that_are_refused_fail_alone(adapters: dict[str, Path]) -> None:
    async def run() -> tuple[list[RowScore], float]:
        async with serving("manners", adapters["manners"], free_port()) as (served, model):

            async def ready(_seconds: float) -> Engine:
                return served.engine

            answers = ["a", "", "word " * 300, "b", "\ud800", "c"]
            scores = await judging.scores(POLITE, [row(answer) for answer in answers], ready, patience=10)
            (output,) = model.run([model.row("b", "manners")])
            return scores, float(TASKS["manners"].probabilities(output)[0])

    scores, b = asyncio.run(run())
    assert [score.score is None for score in scores] == [False, True, True, False, True, False]
    assert scores[3].score == pytest.approx(b, abs=1e-5)
    assert scores[1].error == "the text that the judge would read is empty"
    assert "the judge refused the text: input: a text has 302 tokens, but the model takes 256" in str(scores[2].error)
    assert scores[4].error == "the text that the judge would read is not valid Unicode"


def test_score_of_a_regression_is_its_number_of_the_filled_template(adapters: dict[str, Path]) -> None:
    async def run() -> tuple[list[RowScore], float]:
        async with serving("price", adapters["price"], free_port()) as (served, model):

            async def ready(_seconds: float) -> Engine:
                return served.engine

            scores = await judging.scores(PRICE, [row("ten")], ready, patience=10)
            (output,) = model.run([model.row("asked: ten", "price")])
            return scores, float(output)

    scores, expected = asyncio.run(run())
    assert [score.score for score in scores] == [pytest.approx(expected, abs=1e-3)]


def test_engine_that_refuses_connections_is_tried_again_until_patience_is_over(adapters: dict[str, Path]) -> None:
    port = free_port()
    looked: list[float] = []
    again = asyncio.Event()

    async def ready(seconds: float) -> Engine:
        looked.append(seconds)
        if len(looked) == 3:
            again.set()
        return Served(port).engine

    async def run() -> list[RowScore]:
        with pytest.raises(Unavailable) as refused:
            await judging.scores(POLITE, [row("a")], ready, patience=0)
        assert str(refused.value) == (
            "The judge 'polite' gave no answer: the engine engine-1 of its deployment manners cannot be asked from "
            "here: it refuses connections."
        )
        asked = asyncio.create_task(judging.scores(POLITE, [row("a")], ready, patience=60))
        await again.wait()
        async with serving("manners", adapters["manners"], port):
            return await asked

    assert asyncio.run(run())[0].score is not None
    assert looked == sorted(looked[:1]) + sorted(looked[1:], reverse=True)


def test_engine_that_cannot_give_the_answer_is_not_asked_for_ever(adapters: dict[str, Path]) -> None:
    other = POLITE.model_copy(update={"judge": Judge(deployment_id="unloaded", label="polite")})

    async def run() -> None:
        async with serving("manners", adapters["manners"], free_port()) as (served, _):

            async def ready(_seconds: float) -> Engine:
                return served.engine

            with pytest.raises(Unavailable, match=r"deployment unloaded .*: model: this engine serves no 'unloaded'"):
                await judging.scores(other, [row("a")], ready, patience=60)

    asyncio.run(run())


def test_what_keeps_the_engine_away_is_told_with_judge_and_deployment() -> None:
    async def ready(_seconds: float) -> Engine:
        raise Unavailable("its schedule has it ended.", code="outside_schedule", retry_after=7)

    with pytest.raises(Unavailable) as refused:
        asyncio.run(judging.scores(POLITE, [row("a")], ready, patience=1))
    assert str(refused.value) == "The judge 'polite' cannot ask its deployment manners: its schedule has it ended."
    assert (refused.value.code, refused.value.retry_after) == ("outside_schedule", 7)
