"""Models of the Hugging Face hub: links that name one, and what the hub says before anything is made with it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from emissary import base_models, hub_models, model_files
from emissary.errors import InvalidInput, Unavailable
from emissary.settings import Settings
from tests.test_model_files import put_model, settings_in

REPO = "some-owner/Some_model-1.5"
CHECK = """
import sys
from pathlib import Path
from emissary import hub_models
from emissary.errors import InvalidInput
from emissary.settings import Settings
for name in sys.argv[2:]:
    try:
        hub_models.check(name, "hf_model_link", Settings(home=Path(sys.argv[1]), models=None))
    except InvalidInput as error:
        print(error)
    else:
        print("accepted")
"""


@pytest.mark.parametrize(
    "link", [REPO, f"{REPO}/", f"https://huggingface.co/{REPO}", f"https://huggingface.co/{REPO}/"]
)
def test_page_and_name_of_a_model_name_its_repository(link: str) -> None:
    assert hub_models.repository(link) == REPO


@pytest.mark.parametrize(
    "link",
    [
        "",
        "name",
        "https://huggingface.co/name",
        f"http://huggingface.co/{REPO}",
        f"HTTPS://huggingface.co/{REPO}",
        f"https://hf.co/{REPO}",
        f"https://www.huggingface.co/{REPO}",
        f"https://huggingface.co.evil.example/{REPO}",
        f"https://huggingface.co@evil.example/{REPO}",
        f"https://user:password@huggingface.co/{REPO}",
        f"https://huggingface.co:8443/{REPO}",
        f"https://huggingface.co//{REPO}",
        f"https://huggingface.co/{REPO}?download=true",
        f"https://huggingface.co/{REPO}#files",
        f"https://huggingface.co/{REPO}//",
        "https://huggingface.co/datasets/squad",
        "https://huggingface.co/spaces/some-space",
        f"https://huggingface.co/datasets/{REPO}",
        f"file:///{REPO}",
        f"/{REPO}",
        "../name",
        "owner/..",
        "owner/.name",
        ".owner/name",
        "owner\\name",
        "owner/na me",
        "owner/name\n",
        "owner/n\u00e4me",
        "owner/%2e%2e",
        "owner/a..b",
        "owner/a--b",
        f"owner/{'a' * 97}",
        "SmolLM2-135M-Instruct",
    ],
)
def test_link_to_anything_else_is_refused(link: str) -> None:
    with pytest.raises(InvalidInput, match=r"hf_model_link: .* give https://huggingface.co/owner/name") as raised:
        hub_models.repository(link)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("revision", ["/tree/main", "/blob/main/config.json", "@main", "/resolve/main/a", "/commit/1a"])
def test_revision_is_refused_with_the_reason(revision: str) -> None:
    with pytest.raises(InvalidInput, match="a revision cannot be chosen"):
        hub_models.repository(f"https://huggingface.co/{REPO}{revision}")


def test_link_and_hf_model_go_together() -> None:
    assert hub_models.named("HF_MODEL", REPO) == REPO
    assert hub_models.named("Qwen3-0.6B", None) == "Qwen3-0.6B"
    with pytest.raises(InvalidInput, match="hf_model_link: HF_MODEL needs it"):
        hub_models.named("HF_MODEL", None)
    with pytest.raises(InvalidInput, match="hf_model_link: it goes with base_model HF_MODEL only"):
        hub_models.named("Qwen3-0.6B", REPO)


def test_repository_is_a_base_model_of_all_task_types_with_all_hyperparameters() -> None:
    entry = base_models.get(REPO)
    assert (entry.name, entry.short_name, entry.source) == (
        REPO, "Some_model-1.5", base_models.HubSource(repo=REPO)
    )  # fmt: skip
    assert set(entry.task_types) == {"text-generation", "classification", "regression", "embedding"}
    assert base_models.resolve_parameters(entry, {"max_length": 131072})["lora_r"] == 16
    assert base_models.resolve_parameters(entry, {}, "GRPO")["num_generations"] == 4
    assert REPO not in base_models.catalogue()


def test_local_folder_of_owner_and_name_is_the_model(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert model_files.local_folder(REPO, settings) is None
    folder = put_model(tmp_path / "models" / REPO)
    assert model_files.local_folder(REPO, settings) == folder == model_files.fetch(REPO, settings)


class _Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, by the owner in the path."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        owner = self.path.split("/")[1]
        if owner == "slow":
            time.sleep(hub_models.ANSWER_SECONDS + 1)
        refusals = {"nobody": (404, "RepoNotFound"), "gated": (403, "GatedRepo"), "adapters": (404, "EntryNotFound")}
        status, code = refusals.get(owner, (200, ""))
        self._answer(500 if owner == "broken" else status, b"", code)

    def do_GET(self) -> None:
        files = ["config.json", "pytorch_model.bin" if "/pickles/" in self.path else "model.safetensors"]
        self._answer(200, json.dumps({"id": "x", "siblings": [{"rfilename": name} for name in files]}).encode())

    def _answer(self, status: int, body: bytes, code: str = "") -> None:
        self.send_response(status)
        headers = {"ETag": '"1"', "X-Repo-Commit": "1" * 40, "Content-Length": str(len(body))}
        for name, value in (headers | ({"X-Error-Code": code} if code else {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[str]:
    """Address of a server that speaks as the hub does."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def checked(tmp_path: Path, endpoint: str, *names: str) -> list[str]:
    """What a check of each name says. In a process of its own: the client reads its settings when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", CHECK, str(tmp_path), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def test_hub_is_asked_whether_the_model_can_be_had(tmp_path: Path, hub: str) -> None:
    owners = ("fine", "nobody", "gated", "adapters", "pickles", "broken", "slow")
    fine, nobody, gated, adapters, pickles, broken, slow = checked(tmp_path, hub, *(f"{name}/m" for name in owners))
    assert fine == "accepted"
    assert nobody == (
        "hf_model_link: the Hugging Face model nobody/m cannot be used: there is no such model, or this platform's "
        "token does not open it."
    )
    assert "gated/m cannot be used: it is gated" in gated
    assert "HF_TOKEN" in gated
    assert "it has no config.json" in adapters
    assert "it has no safetensors" in pickles
    assert (broken, slow) == ("accepted", "accepted")


def test_hub_out_of_reach_says_nothing_and_fetching_then_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert checked(tmp_path, "http://127.0.0.1:1", REPO, "Qwen3-0.6B", "no-such-model") == ["accepted"] * 3
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    settings = Settings(home=tmp_path / "home", models=None)
    with pytest.raises(Unavailable, match=rf"Put the model's folder under EMISSARY_MODELS/{REPO} or connect"):
        model_files.fetch(REPO, settings)
    assert [path.name for path in (tmp_path / "home/models/some-owner").iterdir()] == [".Some_model-1.5.lock"]


def test_model_on_this_machine_is_not_asked_for(tmp_path: Path, hub: str) -> None:
    put_model(tmp_path / "models" / "nobody" / "m")
    assert checked(tmp_path, hub, "nobody/m") == ["accepted"]
