"""The artifact store: complete or not there, checked, published once."""

import threading
from pathlib import Path

import pytest

from emissary.errors import NotFound
from emissary.store.artifacts import ArtifactStore, CorruptArtifact

KEY = "training-jobs/tr-1/checkpoints/1"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def made(tmp_path: Path, name: str = "made", text: str = "weights") -> Path:
    folder = tmp_path / name
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "adapter.bin").write_text(text)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    return folder


def test_published_files_come_back_with_their_manifest(store: ArtifactStore, tmp_path: Path) -> None:
    source = made(tmp_path)
    manifest = store.publish(KEY, source, {"epoch": 1})
    assert set(manifest.files) == {"adapter.bin", "tokenizer/vocab.json"}
    assert manifest.files["adapter.bin"].bytes == len("weights")
    assert manifest.notes == {"epoch": 1}
    assert store.manifest(KEY) == manifest
    assert (store.folder(KEY) / "tokenizer" / "vocab.json").read_text() == "{}"
    assert store.file(KEY, "adapter.bin").read_text() == "weights"
    assert (source / "adapter.bin").exists()


def test_move_gives_the_files_away(store: ArtifactStore, tmp_path: Path) -> None:
    source = made(tmp_path)
    store.publish(KEY, source, move=True)
    assert store.file(KEY, "adapter.bin").read_text() == "weights"
    assert not (source / "adapter.bin").exists()


def test_publishing_leaves_no_draft(store: ArtifactStore, tmp_path: Path) -> None:
    store.publish(KEY, made(tmp_path))
    assert [path.name for path in (tmp_path / "artifacts/training-jobs/tr-1/checkpoints").iterdir()] == ["1"]


def test_failing_publish_leaves_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    source = made(tmp_path)
    (source / "adapter.bin").unlink()
    (source / "adapter.bin").mkdir()
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "training-jobs").write_text("a file where a folder has to be")
    with pytest.raises(OSError, match="training-jobs"):
        store.publish(KEY, source)
    assert store.manifest(KEY) is None


def test_second_publisher_loses(store: ArtifactStore, tmp_path: Path) -> None:
    first = store.publish(KEY, made(tmp_path))
    assert store.publish(KEY, made(tmp_path, "other", "other weights")) == first
    assert store.file(KEY, "adapter.bin").read_text() == "weights"


def test_of_publishers_at_the_same_moment_one_wins_whole(store: ArtifactStore, tmp_path: Path) -> None:
    sources = [made(tmp_path, f"made-{number}", f"weights {number}") for number in range(8)]
    start = threading.Barrier(len(sources))
    manifests = []

    def publish(source: Path) -> None:
        start.wait()
        manifests.append(store.publish(KEY, source))

    threads = [threading.Thread(target=publish, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(manifests) == len(sources)
    assert all(manifest == store.manifest(KEY) for manifest in manifests)
    store.folder(KEY)


def test_artifact_without_a_manifest_is_not_there_and_is_published_over(store: ArtifactStore, tmp_path: Path) -> None:
    store.publish(KEY, made(tmp_path))
    (store.folder(KEY) / "manifest.json").unlink()
    assert store.manifest(KEY) is None
    with pytest.raises(NotFound, match="not complete"):
        store.folder(KEY)
    with pytest.raises(NotFound):
        store.file(KEY, "adapter.bin")
    store.publish(KEY, made(tmp_path, "again", "new weights"))
    assert store.file(KEY, "adapter.bin").read_text() == "new weights"


@pytest.mark.parametrize(
    ("name", "content"),
    [("adapter.bin", b"weightz"), ("adapter.bin", b"weights and more"), ("adapter.bin", None)],
    ids=["one byte", "longer", "missing"],
)
def test_damaged_file_is_found_and_named(
    store: ArtifactStore, tmp_path: Path, name: str, content: bytes | None
) -> None:
    store.publish(KEY, made(tmp_path))
    path = store.file(KEY, name)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorruptArtifact, match=rf"{name} of the artifact {KEY} is damaged"):
        store.folder(KEY)


def test_unknown_artifact_and_unknown_file_are_not_found(store: ArtifactStore, tmp_path: Path) -> None:
    store.publish(KEY, made(tmp_path))
    assert store.manifest("datasets/ds-1") is None
    with pytest.raises(NotFound):
        store.folder("datasets/ds-1")
    for name in ("../1/adapter.bin", "manifest.json", "tokenizer", "/etc/passwd"):
        with pytest.raises(NotFound):
            store.file(KEY, name)


@pytest.mark.parametrize("key", ["../secret", "datasets/../../secret", "/etc", "", ".", "datasets/./x", "datasets/.."])
def test_key_that_leaves_the_store_is_refused(store: ArtifactStore, tmp_path: Path, key: str) -> None:
    source = made(tmp_path)
    for call in (store.manifest, store.folder, store.delete, lambda key: store.publish(key, source)):
        with pytest.raises(ValueError, match="not an artifact key"):
            call(key)


def test_delete_removes_an_artifact_or_all_below_a_prefix(store: ArtifactStore, tmp_path: Path) -> None:
    source = made(tmp_path)
    for number in (1, 2):
        store.publish(f"training-jobs/tr-1/checkpoints/{number}", source)
    store.publish("training-jobs/tr-2/checkpoints/1", source)
    store.delete(KEY)
    assert store.manifest(KEY) is None
    assert store.manifest("training-jobs/tr-1/checkpoints/2") is not None
    store.delete("training-jobs/tr-1")
    assert not (tmp_path / "artifacts/training-jobs/tr-1").exists()
    assert store.manifest("training-jobs/tr-2/checkpoints/1") is not None
    store.delete("training-jobs/tr-1")
