import os
import subprocess
import sys
import tempfile
from pathlib import Path

from emissary.process_folders import worker_folders
from emissary.processes import process_identity
from emissary.settings import Settings

LEAVE = """
import os
from emissary.settings import Settings
from emissary.process_folders import worker_folders
with worker_folders(Settings()) as folders:
    (folders.scratch / "left").write_text("by a run")
    print(folders.sockets, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_folders_go_with_the_worker(tmp_path: Path) -> None:
    with worker_folders(Settings(home=tmp_path)) as folders:
        assert folders.scratch.is_dir()
        assert folders.sockets.is_dir()
        (folders.scratch / "file").touch()
    assert not folders.scratch.exists()
    assert not folders.sockets.exists()


def test_folders_of_a_worker_that_was_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    environment = os.environ | {"EMISSARY_HOME": str(tmp_path)}
    killed = subprocess.run(
        [sys.executable, "-c", LEAVE], env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    sockets = Path(killed.stdout.strip())
    assert killed.returncode == -9
    assert sockets.is_dir()
    with worker_folders(Settings(home=tmp_path)) as folders:
        assert list((tmp_path / "scratch").iterdir()) == [folders.scratch]
        assert not sockets.exists()


def test_folders_of_another_worker_that_lives_stay(tmp_path: Path) -> None:
    with worker_folders(Settings(home=tmp_path)) as folders:
        code = LEAVE.replace("os.kill(os.getpid(), 9)", "")
        environment = os.environ | {"EMISSARY_HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)
        assert folders.scratch.is_dir()


def test_path_of_the_fork_servers_socket_is_short() -> None:
    name = f"emissary-worker-{process_identity().partition(':')[2]}/pymp-01234567/listener-01234567"
    assert len(str(Path(tempfile.gettempdir()) / name)) < 108  # the most that Linux takes for a socket
