"""A checkpoint as one archive, made while it is sent."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from emissary.api.archive import zip_chunks
from emissary.api.links import attachment
from emissary.store.artifacts import ArtifactStore, CorruptArtifact
from emissary.store.local_artifacts import LocalArtifactStore

KEY = "training-jobs/tr-1/checkpoints/1"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return LocalArtifactStore(tmp_path / "artifacts")


def archived(store: ArtifactStore) -> bytes:
    manifest = store.manifest(KEY)
    assert manifest is not None
    return b"".join(zip_chunks(store, KEY, manifest))


def test_unpacked_checkpoint_is_loaded_by_peft(store: ArtifactStore, base_model_dir: Path, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(base_model_dir)
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "made")
    store.publish(KEY, tmp_path / "made")
    with zipfile.ZipFile(io.BytesIO(archived(store))) as archive:
        assert archive.testzip() is None
        assert "manifest.json" not in archive.namelist()
        archive.extractall(tmp_path / "unpacked")
    base = AutoModelForCausalLM.from_pretrained(base_model_dir)
    assert PeftModel.from_pretrained(base, tmp_path / "unpacked").peft_config["default"].r == 2


def test_archive_is_given_in_pieces(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "made" / "nested").mkdir(parents=True)
    content = bytes(range(256)) * 4096 * 20
    (tmp_path / "made" / "nested" / "weights.bin").write_bytes(content)
    (tmp_path / "made" / "config.json").write_text(json.dumps({"r": 2}))
    manifest = store.publish(KEY, tmp_path / "made")
    pieces = list(zip_chunks(store, KEY, manifest))
    assert max(map(len, pieces)) < 3 * 1024**2
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.namelist() == ["config.json", "nested/weights.bin"]
        assert archive.read("nested/weights.bin") == content


def test_archive_of_a_damaged_artifact_breaks_off(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "weights.bin").write_text("weights")
    store.publish(KEY, tmp_path / "made")
    store.file(KEY, "weights.bin").write_text("weightz")
    with pytest.raises(CorruptArtifact):
        archived(store)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("rows.csv", "rows.csv"),
        ('a"; filename="b.sh', "a%22%3B%20filename%3D%22b.sh"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil%3A%201"),
        ("größe.csv", "gr%C3%B6%C3%9Fe.csv"),
    ],
)
def test_name_of_a_download_cannot_leave_its_header(name: str, header: str) -> None:
    assert attachment(name) == f"attachment; filename*=UTF-8''{header}"
