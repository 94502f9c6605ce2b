"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def base_model_dir() -> Path:
    """Folder of the small base model, from EMISSARY_MODELS."""
    models = os.environ.get("EMISSARY_MODELS")
    if models is None:
        pytest.fail("EMISSARY_MODELS must name the folder that holds SmolLM2-135M-Instruct.")
    return Path(models) / "SmolLM2-135M-Instruct"
