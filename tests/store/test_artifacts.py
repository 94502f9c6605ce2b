"""The artifact store in a local folder."""

import os
import time
import uuid
from pathlib import Path

import pytest

from emissary.errors import EmissaryError
from emissary.processes import process_identity
from emissary.settings import Settings
from emissary.store.artifacts import ArtifactStore, open_store
from emissary.store.local_artifacts import LocalArtifactStore
from emissary.store.parts import Arriving
from tests.store.artifact_suite import KEY, ArtifactStoreSuite, Kept, made


class Folder(Kept):
    """A local store."""

    def __init__(self, root: Path) -> None:
        self.root, self.store, self.address = root, LocalArtifactStore(root), str(root)

    def names(self) -> list[str]:
        return [path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file()]

    def replace(self, key: str, name: str, content: bytes | None) -> None:
        path = self.root / key / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    def remove_manifest(self, key: str) -> None:
        (self.root / key / "manifest.json").unlink()

    def send(self, arriving: Arriving, number: int, content: bytes) -> None:
        assert self.store.parts.url(arriving, number, 60) is None
        draft = self.store.parts.folder(arriving) / uuid.uuid4().hex
        draft.write_bytes(content)
        self.store.parts.keep(arriving, number, draft)


class TestLocalArtifactStore(ArtifactStoreSuite):
    """All that every store does."""

    @pytest.fixture
    def kept(self, tmp_path: Path) -> Folder:
        return Folder(tmp_path / "artifacts")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return LocalArtifactStore(tmp_path / "artifacts")


def test_part_sent_again_replaces_the_first(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "artifacts")
    arriving = Arriving("datasets/ds-1", "original.jsonl", 3, 3, folder.store.parts.begin("datasets/ds-1", ""))
    for content in (b"old", b"new"):
        folder.send(arriving, 1, content)
    with folder.store.parts.assembled(arriving) as path:
        assert path.read_bytes() == b"new"


def test_publishing_leaves_no_draft(store: ArtifactStore, tmp_path: Path) -> None:
    store.publish(KEY, made(tmp_path))
    assert [path.name for path in (tmp_path / "artifacts/training-jobs/tr-1/checkpoints").iterdir()] == ["1"]
    assert not list((tmp_path / "artifacts/.drafts").iterdir())


def test_folders_are_on_the_disk_when_something_is_published(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "artifacts"
    flushed: list[tuple[int, bool]] = []
    """Inode of what was flushed, and whether it was after the artifact had its name."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, (root / KEY).exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store.publish(KEY, made(tmp_path))
    for folder in (root / KEY, root / KEY / "tokenizer"):
        assert (folder.stat().st_ino, False) in flushed
    for folder in (root / KEY).parents[:4]:
        assert (folder.stat().st_ino, True) in flushed


def test_draft_stays_while_its_publisher_lives_and_that_of_another_machine_for_a_day(
    store: ArtifactStore, tmp_path: Path
) -> None:
    drafts = tmp_path / "artifacts/.drafts"
    mine, others, old = (drafts / f"{name}.0" for name in (process_identity(), "elsewhere:1:2.5", "elsewhere:3:4.5"))
    for draft in (mine, others, old):
        draft.mkdir(parents=True)
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    store.clear_drafts()
    assert sorted(drafts.iterdir()) == sorted([mine, others])


def test_failing_publish_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "training-jobs").write_text("a file where a folder has to be")
    with pytest.raises(OSError, match="training-jobs"):
        store.publish(KEY, made(tmp_path))
    assert store.manifest(KEY) is None


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmissaryError, match=r"file/artifacts cannot be written to.*EMISSARY_ARTIFACTS"):
        LocalArtifactStore(tmp_path / "file" / "artifacts").check()


def test_setting_names_the_store(tmp_path: Path) -> None:
    for chosen in (Settings(home=tmp_path), Settings(artifacts=str(tmp_path / "artifacts"))):
        store = open_store(chosen)
        assert isinstance(store, LocalArtifactStore)
        store.check()
        assert (tmp_path / "artifacts").is_dir()


@pytest.mark.parametrize("address", ["s3://", "s3:///prefix", "s3://Bucket", "gs://bucket", "s3://bucket/../x"])
def test_address_that_names_no_store_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="give a folder, or s3://bucket/prefix"):
        Settings(artifacts=address)


def test_relative_folder_is_one_of_the_place_where_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Settings(artifacts="files").artifacts == str(tmp_path / "files")
