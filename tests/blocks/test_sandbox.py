import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest
from prefect import Flow
from prefect.client.schemas import FlowRun
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from blocks.sandbox import Sandbox, run_rows, score_rows
from blocks.sandbox_replies import RowScore, TestingFailed
from emissary.testing_function_files import TestingFunction
from tests.blocks.conftest import Score
from tests.blocks.processes import descendants, parent_of, running

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
        ("return -1.1e31", r"a number from -1e\+31 to 1e\+31, not -1\.1e\+31"),
        ("return 10 ** 400", "OverflowError"),
        ("return '1.0'", r"a number, not str \(line 1\)"),
        ("async def one(): return 1\nreturn one()", "a number, not coroutine"),
        ("import decimal\nreturn decimal.Decimal(1)", r"a number, such as float\(…\) of its decimal.Decimal"),
        ("return None", "a number, not NoneType"),
        ("return type('F', (float,), {})(1)", "a number, not F"),
        ("raise SystemExit", "SystemExit"),
        ("return attempt('', '', '')", "RecursionError"),
        ("return len(bytearray(6 * 2**30))", "MemoryError"),
        (
            "import os\nos._exit(3)",
            r"failed on 11 of the first 11 of 100 rows, first on row 1: .* ended its process \(status 3\)",
        ),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "ended its process"),
        ("for _ in range(3): print('x' * 2**19)", "must not print more than 1,048,576 characters a row"),
        ("import torch", r"No module named 'torch' \(line 2\); name its package in `dependencies`"),
    ],
)
def test_a_function_that_fails_on_most_rows_says_why(body: str, error: str, score: Score) -> None:
    with pytest.raises(TestingFailed, match=error):
        score(body)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("\ndef attempt(:", r"SyntaxError: .*\(line 2\): def attempt\(:"),
        ("def other(): pass", r"defines no function 'attempt', only 'other' \(line 1\)"),
        ("attempt = 1", "defines no function 'attempt'"),
        ("\ndef attempt(a, b, c): return 1", r"exactly the parameters input_text, expected_output, pred.*\(line 2\)"),
        ("def attempt(input_text, expected_output): return 1", r"exactly the parameters .*\(line 1\)"),
        (f"def attempt({THREE}, more=1): return 1", r"exactly the parameters .*\(line 1\)"),
        (f"def attempt({THREE}, *, more=1): return 1", r"exactly the parameters .*\(line 1\)"),
        (f"def attempt({THREE}, **more): return 1", r"exactly the parameters .*\(line 1\)"),
        ("import numpy", r"No module named 'numpy' \(line 1\); name its package in `dependencies`"),
        ("import os\nos._exit(4)", r"ended its process \(status 4\)"),
        ("raise SystemExit(0)", "SystemExit"),
        ("\0", "null bytes"),
    ],
)
def test_a_source_that_cannot_be_loaded_says_why(source: str, error: str) -> None:
    function = TestingFunction(name="attempt", content=source)
    with pytest.raises(TestingFailed, match=f"'attempt' cannot be loaded: .*{error}"):
        asyncio.run(score_rows(function, [("", "", "")], seconds=20, isolation="none", trusted=False))


def test_dependencies_are_installed_and_seen(score: Score, home: Path) -> None:
    body = "import humanize\nreturn len(humanize.intcomma(int(predicted_output))) + len(humanize.__file__)"
    scores = score(body, rows=1001, dependencies=["humanize"])
    at = len("/packages/humanize/__init__.py")
    assert (scores[999].score, scores[1000].score) == (at + 3, at + 5)
    with pytest.raises(TestingFailed, match=r"Read-only file system|Permission denied"):
        score("open('/packages/x', 'w')", dependencies=["humanize"])
    with pytest.raises(TestingFailed, match="No module named 'humanize'"):
        score(body)
    plain = score(body, rows=1, dependencies=["humanize"], isolation="none")
    assert plain[0].score == 1 + len(str(next(home.glob("packages/*/humanize/__init__.py"))))


def test_a_decorated_function_scores(score: Score) -> None:
    source = f"import functools\n@functools.cache\ndef attempt({THREE}):\n    return 1"
    function = TestingFunction(name="attempt", content=source)
    scores = asyncio.run(run_rows(function, [("", "", "")], seconds=20, isolation="bwrap", trusted=False))
    assert scores == [RowScore(1.0, None)]


def test_what_a_function_prints_comes_with_its_row(score_each: Score) -> None:
    body = """
        print('row', predicted_output, '\\ud800\\x1b[31m')
        if predicted_output == '1': raise KeyError(1)
    """
    first, second = score_each(body)
    error = "TypeError: the function must return a number, not NoneType (line 1)"
    assert first == RowScore(None, error, "row 0   [31m\n")
    assert (second.error, second.printed) == ("KeyError: 1 (line 3)", "row 1   [31m\n")


def test_a_traceback_is_the_functions_own_with_its_lines(score_each: Score) -> None:
    body = """
        def inner(text):
            return int(text) / 0
        try: return inner(predicted_output)
        except ZeroDivisionError as error: raise ValueError('x' * 10_000 + 'end') from error
    """
    row = score_each(body)[0]
    assert row.traceback.endswith("xend\n")
    assert len(row.traceback) == 4000
    row = score_each(body.replace("'x' * 10_000 + 'end'", "'no'"))[0]
    assert row.traceback.startswith('Traceback (most recent call last):\n  File "attempt.py", line 4, in attempt\n')
    assert "    return int(text) / 0\n" in row.traceback
    assert row.traceback.endswith("ValueError: no\n")
    assert "runner" not in row.traceback


def test_a_test_that_fails_keeps_the_first_traceback(score: Score) -> None:
    with pytest.raises(TestingFailed) as failure:
        score("return 1 / 0")
    assert 'File "attempt.py", line 2, in attempt\n    return 1 / 0\n' in failure.value.traceback
    assert "Traceback" not in str(failure.value)


def test_a_row_that_hangs_or_ends_the_process_is_its_own_failure(score_each: Score) -> None:
    body = """
        import os, time
        if predicted_output == '3': time.sleep(600)
        if predicted_output == '5': os._exit(7)
        if predicted_output == '6': return len(bytearray(6 * 2**30))
        return int(predicted_output)
    """
    scores = score_each(body, rows=500, row_seconds=1)
    failed = {number: row.error or "" for number, row in enumerate(scores) if row.score is None}
    assert list(failed) == [3, 5, 6]
    assert failed[3] == "the function did not score the row within 1 s"
    assert "ended its process (status 7)" in failed[5]
    assert failed[6].startswith("MemoryError")
    assert [row.score for row in scores[7:]] == list(map(float, range(7, 500)))


def test_rows_that_hang_leave_the_others_their_time(score_each: Score) -> None:
    body = """
        import time
        if predicted_output in '3 7': time.sleep(600)
        return int(predicted_output)
    """
    scores = score_each(body, rows=20, row_seconds=2, seconds=3)
    assert [number for number, row in enumerate(scores) if row.score is None] == [3, 7]


def test_rows_of_a_sandbox_that_is_killed_from_outside_are_scored_all_the_same(namespaces: None) -> None:
    """It is killed at the third row, and where it has been started again while the function is loaded."""
    slow = f"import time\ntime.sleep(0.3)\ndef attempt({THREE}):\n    time.sleep(0.1)\n    return int(predicted_output)"
    function = TestingFunction(name="attempt", content=slow)
    others = descendants(os.getpid())  # the platform of other tests

    def outer() -> set[int]:
        """The processes that this one has started."""
        return {pid for pid in descendants(os.getpid()) - others if parent_of(pid) == os.getpid()}

    async def started(after: set[int]) -> set[int]:
        while not (found := outer() - after):  # noqa: ASYNC110 - nothing tells of a start
            await asyncio.sleep(0.01)
        return found

    async def run() -> list[RowScore]:
        rows = [("", "", str(number)) for number in range(5)]
        scoring = asyncio.create_task(run_rows(function, rows, seconds=60, isolation="bwrap", trusted=False))
        first = await started(set())
        await asyncio.sleep(0.6)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        second = await started(first)
        await asyncio.sleep(0.1)
        for pid in second:
            os.kill(pid, signal.SIGKILL)
        return await scoring

    assert asyncio.run(run()) == [RowScore(float(number), None) for number in range(5)]


@pytest.mark.parametrize("isolation", ["bwrap", "none"])
def test_the_process_is_kept_between_calls_and_replaced_when_it_is_gone(
    isolation: Literal["bwrap", "none"], request: pytest.FixtureRequest
) -> None:
    if isolation == "bwrap":
        request.getfixturevalue("namespaces")
    source = f"""
import os, threading
calls = 0
def attempt({THREE}):
    global calls
    calls += 1
    if predicted_output == 'leave': threading.Timer(0.05, os._exit, [0]).start()
    return calls
"""
    function = TestingFunction(name="attempt", content=source)

    async def run() -> list[float | None]:
        found = []
        async with Sandbox(function, seconds=20, isolation=isolation, trusted=False) as sandbox:
            for text in ("a", "b", "leave"):
                found += await sandbox.run([("", "", text)])
            assert sandbox._process is not None
            await asyncio.wait_for(sandbox._process.wait(), 20)
            found += await sandbox.run([("", "", "c")])
            process = sandbox._process
        assert not running(process.pid)
        return [row.score for row in found]

    assert asyncio.run(run()) == [1.0, 2.0, 3.0, 1.0]


def test_cpu_time_is_bounded_between_calls_too(namespaces: None) -> None:
    source = f"""
import threading
def spin():
    while True: pass
def attempt({THREE}):
    threading.Thread(target=spin, daemon=True).start()
    return 1
"""
    function = TestingFunction(name="attempt", content=source)

    async def run() -> int:
        async with Sandbox(function, seconds=0.5, isolation="bwrap", trusted=False) as sandbox:
            assert (await sandbox.run([("", "", "")]))[0].score == 1.0
            assert sandbox._process is not None
            return await asyncio.wait_for(sandbox._process.wait(), 60)

    assert asyncio.run(run()) != 0


def test_what_a_function_prints_and_reads_leaves_the_replies_alone(score: Score) -> None:
    body = """
        import os, sys
        print("x" * 100_000, '{"score": 5.0}')
        print("x" * 100_000, file=sys.stderr)
        os.write(1, b'{"score": 5.0}\\n')
        return len(sys.stdin.read())
    """
    assert {row.score for row in score(body)} == {0.0}


@pytest.mark.parametrize("isolation", ["bwrap", "none"])
def test_an_endless_wait_ends_at_the_limit_with_all_its_processes(
    isolation: str, request: pytest.FixtureRequest
) -> None:
    run = request.getfixturevalue("score" if isolation == "bwrap" else "score_in")
    body = """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try: os.fork()
        except PermissionError: pass
        while True:
            try: time.sleep(600)
            except BaseException: pass
    """
    failures = []

    def attempt() -> None:
        with pytest.raises(TestingFailed, match="scored 0 of 100 rows within 1 s") as failure:
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


def test_a_slow_function_that_fails_is_told_to_be_corrected(score: Score) -> None:
    with pytest.raises(TestingFailed, match=r"failed on .* rows, first on row 1: ValueError: slow"):
        score("import time\ntime.sleep(0.05)\nraise ValueError('slow')", seconds=1.5)


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


@pytest.mark.parametrize("place", ["blocks.sandbox", "prefect.flow_runs"])
def test_none_warns_on_every_use_that_there_is_no_isolation_and_in_the_run_where_there_is_one(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    function = TestingFunction(name="attempt", content=f"def attempt({THREE}): return 1")

    async def run() -> None:
        async with Sandbox(function, seconds=20, isolation="none", trusted=False) as sandbox:
            await sandbox.run([("", "", "")])
            await sandbox.run([("", "", "")])

    in_a_run = FlowRunContext.model_construct(flow=Flow(run, name="train"), flow_run=FlowRun(flow_id=uuid4()))
    logging.getLogger(place).addHandler(caplog.handler)
    try:
        within = in_a_run if place == "prefect.flow_runs" else contextlib.nullcontext()
        with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: False}), within:
            asyncio.run(run())
    finally:
        logging.getLogger(place).removeHandler(caplog.handler)
    told = {id(record): record for record in caplog.records if "EMISSARY_SANDBOX=none" in record.getMessage()}
    assert [record.name for record in told.values()] == [place] * 2
