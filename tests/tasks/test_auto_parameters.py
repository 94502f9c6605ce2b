"""What is chosen where a hyperparameter is `auto`."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary.hardware import memory_bytes
from emissary.schemas.parameters import AUTO
from tasks.auto_parameters import choose
from tasks.model_shape import ModelShape, model_shape
from tests.tasks.pooled_run import PARAMETERS, encoder_dir

OPEN = PARAMETERS | {"learning_rate": AUTO, "per_device_train_batch_size": AUTO, "lora_alpha": 32}


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return model_shape(encoder_dir(), "classification")


def chosen(shape: ModelShape, lengths: list[int], **changed: Any) -> dict[str, Any]:
    return choose(OPEN | changed, shape, lengths)[0]


def test_shape_of_a_model_is_read_without_its_weights(shape: ModelShape) -> None:
    assert (shape.hidden_size, shape.layers, shape.context) == (384, 6, 256)
    assert shape.parameters == pytest.approx(22.7e6, rel=0.02)
    # Per layer four matrices of attention, and two of the feed-forward network; the pooler and the head.
    assert shape.lora_width == 6 * (4 * 2 * 384 + 2 * (384 + 1536)) + 2 * 384 + 386


def test_choice_follows_model_data_and_rank(shape: ModelShape) -> None:
    first = chosen(shape, [20] * 4000, num_train_epochs=1)
    assert first == {"learning_rate": 1.8e-3, "per_device_train_batch_size": 32}
    assert chosen(replace(shape, hidden_size=4096), [20] * 4000, num_train_epochs=1)["learning_rate"] == 2.9e-4
    # alpha / r scales the update, so the rank itself changes nothing, and alpha inversely.
    assert chosen(shape, [20] * 4000, num_train_epochs=1, lora_r=64) == first
    assert chosen(shape, [20] * 4000, num_train_epochs=1, lora_alpha=64)["learning_rate"] == 9.1e-4
    # Fewer rows: smaller steps, and a rate by the root of it; under 100 steps half as much again.
    assert chosen(shape, [20] * 800, num_train_epochs=1) == {
        "learning_rate": 9.1e-4,
        "per_device_train_batch_size": 8,
    }
    assert chosen(shape, [20] * 80, num_train_epochs=1) == {"learning_rate": 9.6e-4, "per_device_train_batch_size": 4}


def test_what_is_given_stays_and_is_reckoned_with(shape: ModelShape) -> None:
    assert chosen(shape, [20] * 4000, per_device_train_batch_size=8, num_train_epochs=1) == {"learning_rate": 9.1e-4}
    assert list(chosen(shape, [20] * 4000, learning_rate=0.1)) == ["per_device_train_batch_size"]
    assert choose(PARAMETERS, shape, [20] * 4000) == ({}, "")


def test_max_length_beyond_the_models_context_becomes_that(shape: ModelShape) -> None:
    assert choose(PARAMETERS | {"max_length": 1024}, shape, [20]) == (
        {"max_length": 256},
        "The model takes 256 tokens, not 1024.",
    )


@given(st.integers(1, 10**9), st.integers(1, 10**4), st.integers(1, 100), st.integers(1, 64))
def test_choice_is_within_bounds_fits_and_says_why(longest: int, rows: int, epochs: int, accumulated: int) -> None:
    parameters = OPEN | {"num_train_epochs": epochs, "gradient_accumulation_steps": accumulated}
    shape = ModelShape("text-generation", None, 8192, 576, 30, 49152, 135_000_000, 400_000)
    values, why = choose(parameters, shape, [longest] + [1] * (rows - 1))
    size, rate = values["per_device_train_batch_size"], values["learning_rate"]
    assert size in (1, 2, 4, 8, 16, 32)
    assert 0 < rate <= 0.01
    assert size == 1 or shape.training_bytes(OPEN["lora_r"], size, longest) <= memory_bytes()
    assert f"{size} row{'s' * (size > 1)} per pass: " in why
    assert why.split(" epoch")[0].split()[-1] == str(epochs)
    assert (" epochs" in why) == (epochs > 1)
    assert f"Learning rate {rate:g}" in why
    assert (values, why) == choose(parameters, shape, [longest] + [1] * (rows - 1))
