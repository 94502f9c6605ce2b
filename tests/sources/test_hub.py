"""Datasets of the hub are named, and no folder of this machine is. There is no hub here: in its place
tests/data/test_hub_datasets.py reads folders.
"""

from pathlib import Path

import pytest
from pydantic import ValidationError

from emissary.data.hub_datasets import export_from_hub
from emissary.errors import InvalidInput, Unavailable
from emissary.schemas.sources import HubSource
from emissary.sources import hub


@pytest.mark.parametrize(
    "name",
    ["/etc", "../data", "a/../b", "./a", "a/b/c", "~/a", "https://host/a", "hf://a", "a--b", "", "-a", "a b", "a\n"],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        HubSource(source="hub", dataset=name)


@pytest.mark.parametrize("name", ["squad", "owner/name", "owner/name-1.0_b"])
def test_name_of_the_hub_is_taken(name: str) -> None:
    assert HubSource(source="hub", dataset=name).dataset == name


def test_folder_of_that_name_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"prompt": "secret", "completion": "secret"}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="'owner/name' cannot be fetched"):
        export_from_hub("owner/name", tmp_path / "out.jsonl", revision="main")
    assert not (tmp_path / "out.jsonl").exists()


def test_hub_that_is_not_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"^gather\.dataset: owner/name cannot be had: the Hugging Face hub"):
        hub.fetch(HubSource(source="hub", dataset="owner/name"), [], tmp_path)
