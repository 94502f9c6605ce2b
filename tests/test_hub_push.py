"""A checkpoint pushed by huggingface_hub's own client, to a fake that stands for the hub (tests/hub_server.py)."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from safetensors.numpy import load, save_file

from emissary import hub_push
from emissary.errors import InvalidInput, Unavailable
from emissary.schemas.hub_pushes import PushToHub
from emissary.settings import settings
from emissary.store.artifacts import artifact_store
from emissary.store.hub_pushes import Pushable
from emissary.store.tables import Checkpoint, Dataset, TrainingJob
from tests.hub_server import TOKEN, FakeHub, fake_hub
from tests.own_home import own_home

REPO = "acme/triage"
SUMMARY = {
    "mean": 0.75, "low": 0.6, "high": 0.9, "rows": 20, "worst": [],
    "base": {"mean": 0.1, "low": 0.0, "high": 0.2}, "difference": {"mean": 0.65, "low": 0.5, "high": 0.8},
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with own_home(), fake_hub() as hub:
        for name, value in {"ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        sources = tmp_path / "sources.json"
        sources.write_text(
            json.dumps(
                {
                    "models": {"organizations": ["ours"], "hub": "acme", "token": TOKEN},
                    "wrong": {"organizations": ["ours"], "hub": "others", "token": TOKEN},
                }
            )
        )
        monkeypatch.setattr(settings(), "sources", sources)
        yield hub


def pushable(tmp_path: Path, task: dict[str, Any] | None = None, **changed: Any) -> Pushable:
    """A checkpoint whose adapter is in the store."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_file({"lora_A": np.ones((2, 2), np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "SmolLM2-135M-Instruct"}))
    (folder / "tokenizer.json").write_text("{}")
    if task is not None:
        (folder / "task.json").write_text(json.dumps(task))
    artifact_store().publish("checkpoints/2", folder)
    report = {"rows": 40}
    job = TrainingJob(
        **{
            "id": "tr-1", "name": "tri|age <b>", "description": None, "training_technique": "SFT",
            "task_type": "text-generation", "base_model": "SmolLM2-135M-Instruct",
            "train_dataset": Dataset(id="ds-1", name="tickets", report=report), "test_dataset": None,
            "train_test_split_ratio": 20.0, "hyper_parameters": {"lora_r": 2, "learning_rate": 0.001},
        }
        | changed
    )  # fmt: skip
    checkpoint = Checkpoint(
        number=2, artifact="checkpoints/2", train_loss=0.5, test_loss=0.25, created_at=datetime(2026, 1, 2, tzinfo=UTC),
        scores={"exact_match_shared": 0.75},
        report={"metrics": {"chrf": 0.5}, "test_summary": {"exact_match_shared": SUMMARY}},
    )  # fmt: skip
    return Pushable(job, checkpoint, 2, "ours")


def test_adapter_and_card_are_one_commit_and_the_same_again_is_none(hub: FakeHub, tmp_path: Path) -> None:
    what = pushable(tmp_path)
    pushed = hub_push.push(what, PushToHub(repo=REPO))
    found = hub.repositories[REPO]
    assert found.private
    assert set(found.files) == {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    assert load(found.files["adapter_model.safetensors"])["lora_A"].tolist() == [[1, 1], [1, 1]]
    config = json.loads(found.files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found.commits == ["Checkpoint 2 of tr-1"]
    assert (pushed.repo, pushed.checkpoint, pushed.url) == (REPO, 2, f"{hub.url}/{REPO}")
    again = hub_push.push(what, PushToHub(repo=REPO, private=False))
    assert (again.commit, len(found.commits), found.private) == (pushed.commit, 1, True)
    what.job.hyper_parameters = {"lora_r": 4}
    assert hub_push.push(what, PushToHub(repo=REPO)).commit != pushed.commit
    assert len(found.commits) == 2


def test_card_is_what_the_hub_reads(hub: FakeHub, tmp_path: Path) -> None:
    hub_push.push(pushable(tmp_path), PushToHub(repo=REPO))
    card = ModelCard(hub.repositories[REPO].files["README.md"].decode())
    data = card.data
    assert (data.base_model, data.license, data.library_name, data.pipeline_tag) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "peft", "text-generation",
    )  # fmt: skip
    assert {(row.metric_type, row.metric_value, row.dataset_name) for row in data.eval_results or []} == {
        ("exact_match_shared", 0.75, "tickets"),
        ("chrf", 0.5, "tickets"),
    }
    text = card.text
    assert r"# tri\|age \<b\>" in text
    assert "| exact\\_match\\_shared | 0.75 [0.6, 0.9] | 0.1 [0, 0.2] | 0.65 [0.5, 0.8] |" in text
    assert "| chrf | 0.5 |  |  |" in text
    assert "| training | tickets | 40 |" in text
    assert "20 % were held out" in text
    assert "| learning_rate | 0.001 |" in text
    assert f'AutoPeftModelForCausalLM.from_pretrained("{REPO}")' in text
    assert "| test | 0.25 |" in text


def test_card_of_a_classifier_names_its_labels_and_its_head(hub: FakeHub, tmp_path: Path) -> None:
    task = {
        "task_type": "classification", "label_kind": "multiclass", "labels": ["bill", "fault", "other"],
        "target_mean": 0.0, "target_std": 1.0,
    }  # fmt: skip
    hub_push.push(
        pushable(tmp_path, task, task_type="classification", base_model="all-MiniLM-L6-v2"), PushToHub(repo=REPO)
    )
    found = hub.repositories[REPO].files
    assert json.loads(found["task.json"]) == task
    text = ModelCard(found["README.md"].decode()).text
    assert "torch.nn.Linear(model.config.hidden_size, 3)" in text
    assert '(softmax) of the labels in `task.json`, in this order: `["bill", "fault", "other"]`' in text


def test_owner_is_the_operators_to_allow(hub: FakeHub, tmp_path: Path) -> None:
    what = pushable(tmp_path)
    with pytest.raises(InvalidInput, match=r"^push_to_hub\.repo: .* may not push to 'nobody'; .*EMISSARY_SOURCES"):
        hub_push.push(what, PushToHub(repo="nobody/triage"))
    stranger = Pushable(what.job, what.checkpoint, 2, "theirs")
    with pytest.raises(InvalidInput, match="may not push to 'acme'"):
        hub_push.push(stranger, PushToHub(repo=REPO))
    assert not hub.repositories


def test_hub_that_refuses_or_is_away_is_told_in_a_sentence(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = pushable(tmp_path)
    with pytest.raises(InvalidInput, match=r"does not let this platform write to others/triage: .*\(status 403\)\."):
        hub_push.push(what, PushToHub(repo="others/triage"))
    hub.broken = True
    with pytest.raises(Unavailable, match=r"cannot take acme/triage now: .*Push again later\."):
        hub_push.push(what, PushToHub(repo=REPO))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="the Hugging Face hub cannot be reached"):
        hub_push.push(what, PushToHub(repo=REPO))
    hub.broken = False
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    assert hub_push.push(what, PushToHub(repo=REPO)).checkpoint == 2


@pytest.mark.parametrize(
    "repo", ["triage", "acme/", "/triage", "acme/a/b", "acme/..", "acme/a--b", "acme/.a", "a c/b", ""]
)
def test_what_is_no_repository_is_refused(repo: str) -> None:
    with pytest.raises(ValueError, match="as owner/name"):
        PushToHub(repo=repo)
