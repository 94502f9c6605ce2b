"""The block of Prefect that holds the token opens private models and datasets of the hub, for which a fake stands."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from blocks.hub_token import HubToken
from emissary.hub_tokens import BLOCK
from emissary.up import Platform
from tests.private_hub import TOKEN, private_hub

READ = """
import sys
from pathlib import Path
from emissary import hub_models, model_files
from emissary.errors import EmissaryError
from emissary.schemas.sources import HubSource
from emissary.settings import settings
from emissary.sources import hub
folder = Path(sys.argv[1])
source = HubSource(source="hub", dataset="acme/rows")
for ask in (
    lambda: hub_models.check("acme/model", "base_model", settings()),
    lambda: sorted(path.name for path in model_files.fetch("acme/model", settings()).iterdir()),
    lambda: hub.check(source),
    lambda: hub.fetch(source, [], folder).path.read_text().strip(),
):
    try:
        print(ask())
    except EmissaryError as error:
        print(error)
"""
ROW = '{"prompt": "Say red.", "completion": "red"}'


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    files = tmp_path / "repository"
    files.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (files / name).write_text("{}")
    (files / "train.jsonl").write_text(ROW + "\n")
    with private_hub(files) as address:
        yield address


@pytest.fixture
def prefect(platform: Platform) -> str:
    """The address of its API."""
    return f"{platform.prefect_url}/api"


@pytest.fixture
def block(prefect: str) -> Iterator[None]:
    """The block with the token."""

    async def save() -> None:
        await HubToken(token=SecretStr(TOKEN)).save(BLOCK)  # type: ignore[misc]

    async def delete() -> None:
        await HubToken.adelete(BLOCK)

    with temporary_settings({PREFECT_API_URL: prefect}):
        asyncio.run(save())
        yield
        asyncio.run(delete())


def read(hub: str, folder: Path, prefect: str | None, token: str | None = None) -> list[str]:
    """What is said of a private model, its files, a private dataset's commit, and its rows. In a process of its own:
    the client reads its settings when it is imported.
    """
    hidden = ("HF_TOKEN", "PREFECT_API_URL", "EMISSARY_MODELS")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf")}
    environment |= {"EMISSARY_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"PREFECT_API_URL": prefect} if prefect else {}
    environment |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def opened(said: list[str]) -> bool:
    return said == ["None", "['config.json', 'model.safetensors', 'tokenizer.json']", "1" * 40, ROW]


def test_token_of_the_block_opens_what_is_private(hub: str, prefect: str, block: None, tmp_path: Path) -> None:
    assert opened(said := read(hub, tmp_path, prefect)), said
    # It wins over the process's own, which may be of a person who uses the machine.
    assert opened(said := read(hub, tmp_path / "2", prefect, "hf_another")), said


def test_without_the_block_the_process_has_its_own(hub: str, prefect: str, tmp_path: Path) -> None:
    assert opened(said := read(hub, tmp_path, prefect, TOKEN)), said
    assert opened(said := read(hub, tmp_path / "2", None, TOKEN)), said


def test_without_any_it_is_said_what_to_do(hub: str, prefect: str, tmp_path: Path) -> None:
    said = read(hub, tmp_path, prefect)
    assert len(said) == 4
    assert "this platform's token does not open it" in said[0]
    for line in said[2:]:
        assert "set HF_TOKEN or make the block hub-token/default in Prefect" in line


def test_prefect_that_is_away_is_told_and_nothing_is_read_with_another_token(hub: str, tmp_path: Path) -> None:
    said = read(hub, tmp_path, "http://127.0.0.1:9/api", TOKEN)
    assert said[0] == "None", "the check stands in the way of nothing that it cannot judge"
    assert ["Prefect's server" in line for line in said[1:]] == [True] * 3
