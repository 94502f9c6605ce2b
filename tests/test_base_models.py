"""The catalogue of base models and the hyperparameters of jobs on them."""

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from emissary import base_models
from emissary.errors import InvalidInput
from emissary.schemas.parameters import GrpoParameters, SftParameters

SMALL = base_models.get("SmolLM2-135M-Instruct")
NAMES = list(SftParameters.model_fields)


def resolve(**requested: Any) -> dict[str, Any]:
    return base_models.resolve_parameters(SMALL, requested)


def refused(requested: dict[str, Any]) -> str:
    with pytest.raises(InvalidInput) as caught:
        base_models.resolve_parameters(SMALL, requested)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_catalogue_has_packaged_and_hub_models() -> None:
    catalogue = base_models.catalogue()
    assert len(catalogue) >= 14
    assert isinstance(catalogue["all-MiniLM-L6-v2"].source, base_models.PackageSource)
    assert isinstance(catalogue["Qwen3-0.6B"].source, base_models.HubSource)
    assert [name for name, entry in catalogue.items() if entry.name != name] == []


def test_templates_are_complete_and_fit_the_context() -> None:
    for entry in base_models.catalogue().values():
        assert list(base_models.resolve_parameters(entry, {})) == NAMES
    assert resolve()["learning_rate"] == 5e-4
    assert base_models.get("Qwen3-4B").parameter_template["learning_rate"] == 2e-4


def test_entry_with_unknown_key_or_no_member_is_refused() -> None:
    entry = SMALL.model_dump()
    with pytest.raises(ValidationError):
        base_models.BaseModelEntry.model_validate(entry | {"licence": "x"})
    with pytest.raises(ValidationError, match="either gguf or folder"):
        base_models.BaseModelEntry.model_validate(entry | {"source": entry["source"] | {"gguf": None}})


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "SmolLM2-135M-Instuct"])
def test_unknown_base_model_is_refused_with_the_nearest_name(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"base_model: .* did you mean SmolLM2-135M-Instruct\? Known are"):
        base_models.get(name)


@pytest.mark.parametrize("name", ["", "../x", "a\nb\x1b[31m", "x" * 100_000])
def test_odd_base_model_name_makes_a_short_printable_sentence(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        base_models.get(name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_request_goes_over_the_template_and_leaves_it_alone() -> None:
    resolved = resolve(learning_rate=1e-7, num_train_epochs=3.0, downsample_size=50, dynamic_loss=True)
    assert resolved | {"learning_rate": 1e-7, "num_train_epochs": 3, "downsample_size": 50} == resolved
    assert type(resolved["num_train_epochs"]) is int
    assert resolve(learning_rate=1)["learning_rate"] == 1.0
    assert SMALL.parameter_template["learning_rate"] == 5e-4


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("learning_rate", 0, 'parameters.learning_rate: 0 is not a number above 0 to 1, or "auto".'),
        ("learning_rate", "1e-4", 'parameters.learning_rate: "1e-4" is not a number above 0 to 1, or "auto".'),
        ("learning_rate", True, 'parameters.learning_rate: true is not a number above 0 to 1, or "auto".'),
        ("learning_rate", math.nan, 'parameters.learning_rate: NaN is not a number above 0 to 1, or "auto".'),
        ("learning_rate", -math.inf, 'parameters.learning_rate: -Infinity is not a number above 0 to 1, or "auto".'),
        ("learning_rate", 10**400, None),
        ("num_train_epochs", -1, "parameters.num_train_epochs: -1 is not a whole number from 1 to 100."),
        ("num_train_epochs", 2.5, "parameters.num_train_epochs: 2.5 is not a whole number from 1 to 100."),
        ("num_train_epochs", True, "parameters.num_train_epochs: true is not a whole number from 1 to 100."),
        ("num_train_epochs", math.inf, "parameters.num_train_epochs: Infinity is not a whole number from 1 to 100."),
        ("num_train_epochs", 1e300, None),
        (
            "per_device_train_batch_size",
            "Auto",
            'parameters.per_device_train_batch_size: "Auto" is not a whole number from 1 to 1024, or "auto".',
        ),
        ("early_stopping_metric", "", 'parameters.early_stopping_metric: "" is not a text of 1 to 100 characters.'),
        ("seed", 2**32, "parameters.seed: 4294967296 is not a whole number from 0 to 4294967295."),
        ("lora_dropout", 1, "parameters.lora_dropout: 1 is not a number from 0 to below 1."),
        ("downsample_size", [1], "parameters.downsample_size: a list is not a number above 0 to 100."),
        ("dynamic_loss", 1, "parameters.dynamic_loss: 1 is not true or false."),
        ("weight_decay", None, "parameters.weight_decay: null is not a number from 0 to 1."),
        ("max_length", 9000, "parameters.max_length: 9000 is longer than the context of SmolLM2-135M-Instruct, 8192"),
        ("lr_scheduler_type", "cosin", 'parameters.lr_scheduler_type: "cosin" is not one of linear, cosine, '),
        ("learning_rat", 1, "parameters.learning_rat: learning_rat is unknown; did you mean learning_rate? Known are"),
        ("zzz", 1, "parameters.zzz: zzz is unknown; known are num_train_epochs, "),
    ],
)
def test_bad_parameter_is_named_with_its_value_and_what_is_allowed(name: str, value: Any, sentence: str | None) -> None:
    assert refused({name: value}).startswith(sentence or f"parameters.{name}: ")


def test_all_bad_parameters_are_named_at_once() -> None:
    sentence = refused({"seed": -1, "lora_r": 0})
    assert "parameters.seed: -1" in sentence
    assert "parameters.lora_r: 0" in sentence
    assert len(refused({f"x{i}": i for i in range(10_000)})) < 3000


def test_embedding_model_is_trained_with_its_own_defaults() -> None:
    resolved = base_models.resolve_parameters(base_models.get("all-MiniLM-L6-v2"), {})
    assert (resolved["learning_rate"], resolved["max_length"]) == (1e-3, 256)


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=2)
), max_size=4))  # fmt: skip
def test_any_request_resolves_within_bounds_or_is_refused_in_one_printable_sentence(requested: dict[str, Any]) -> None:
    try:
        resolved = base_models.resolve_parameters(SMALL, requested)
    except InvalidInput:
        sentence = refused(requested)
        assert sentence.startswith("parameters.")
        assert sentence.isprintable()
    else:
        assert SftParameters(**resolved).model_dump() == resolved
        assert {name: resolved[name] for name in requested} == requested


def test_catalogue_does_not_import_torch() -> None:
    code = (
        "import sys, emissary.base_models; print([m for m in ('torch', 'transformers', 'prefect') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_grpo_has_a_template_of_its_own_for_models_that_generate_text() -> None:
    resolved = base_models.resolve_parameters(SMALL, {"num_generations": 2.0}, "GRPO")
    assert list(resolved) == list(GrpoParameters.model_fields)
    assert (resolved["num_generations"], resolved["num_train_epochs"], resolved["learning_rate"]) == (2, 15, 5e-6)
    assert base_models.grpo_template(base_models.get("all-MiniLM-L6-v2")) == {}
    with pytest.raises(InvalidInput, match=r"learning_rate: \"auto\" is not a number above 0 to 1\.$"):
        base_models.resolve_parameters(SMALL, {"learning_rate": "auto"}, "GRPO")
    with pytest.raises(InvalidInput, match=r"parameters\.num_generations: num_generations is unknown"):
        base_models.resolve_parameters(SMALL, {"num_generations": 2})
