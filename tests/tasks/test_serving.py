"""What an engine that starts does with adapters that it served before."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from emissary.errors import InvalidInput, Unavailable
from tasks import serving


def loaded(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[tuple[Any, ...]]:
    """What is noted in the catalogue of an adapter whose loading raises `error`."""
    noted: list[tuple[Any, ...]] = []

    async def in_catalogue(*what: Any) -> None:
        noted.append(what[1:])

    def load(_name: str, _artifact: str | None) -> None:
        raise error

    monkeypatch.setattr(serving, "in_catalogue", in_catalogue)
    monkeypatch.setattr(serving, "get_run_logger", lambda: logging.getLogger(__name__))
    app: Any = SimpleNamespace(state=SimpleNamespace(load=load))
    assert asyncio.run(serving._loaded(app, "dp-1", "training-jobs/tr-1/checkpoints/1")) is False
    return noted


def test_deployment_stays_as_it_is_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable):
        loaded(monkeypatch, Unavailable("The store cannot be reached."))


def test_adapter_that_cannot_be_loaded_fails_its_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    told = loaded(monkeypatch, InvalidInput("It has another rank."))
    assert told == [("dp-1", "Its adapter could not be loaded again: It has another rank.")]
