"""Code that passes its tests: the share of the expected output's tests that the answer's Python passes."""

import ast
import faulthandler
import os
import re
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import CodeType, ModuleType

_SECONDS = 3.0
_FENCED = re.compile(r"```(?:python|py)?[^\S\n]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
_DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SETUP = (*_DEFINITIONS, ast.Assign, ast.AnnAssign, ast.AugAssign)


def code_tests_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """Share of the tests that pass, 0 to 1; 0.0 where the answer is no Python, raises, or takes over three seconds.

    The tests are the statements of the expected output, such as `assert add(1, 2) == 3`, or `check(add)` where it
    defines `check`; its imports, definitions and assignments come before or between them. The answer is the last
    block between ``` and ```, or all of it where there is none. Both run in one fresh module with the standard
    library. Nothing keeps an answer that is written to deceive its tests from doing so. The process is of no use for
    another answer, and is ended by one that cannot be interrupted. Raises ValueError where the expected output is no
    Python or has no tests.
    """
    try:
        statements = [(_compiled([node]), not isinstance(node, _SETUP)) for node in _statements(expected_output)]
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"the expected output is not Python: {error}; correct the row") from None
    tests = sum(is_test for _, is_test in statements)
    if not tests:
        raise ValueError("the expected output has no tests, such as `assert add(1, 2) == 3`; correct the row")
    fenced = _FENCED.findall(predicted_output)
    return _passed(fenced[-1] if fenced else predicted_output, statements) / tests


def _statements(source: str) -> list[ast.stmt]:
    """The statements of a module but for texts that stand alone, such as its docstring."""
    body = ast.parse(source.strip("\n")).body
    return [node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]


def _compiled(body: list[ast.stmt]) -> CodeType:
    return compile(ast.Module(body, type_ignores=[]), "<answer>", "exec", dont_inherit=True)


class _TimeUp(BaseException):
    pass


def _time_up(_number: int, _frame: object) -> None:
    raise _TimeUp


def _passed(answer: str, statements: list[tuple[CodeType, bool]]) -> int:
    """How many tests the answer passes."""
    module = ModuleType("answer")
    sys.modules["answer"] = module  # dataclasses and pickle look the module up
    signal.signal(signal.SIGALRM, _time_up)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    # Python's signals wait for C, such as `sum(range(10**12))`; this does not.
    faulthandler.dump_traceback_later(_SECONDS + 1, exit=True, file=2)
    passed = 0
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            exec(_compiled(_statements(answer)), module.__dict__)  # noqa: S102 - the purpose
            for statement, is_test in statements:
                try:
                    exec(statement, module.__dict__)  # noqa: S102
                    passed += is_test
                except _TimeUp:
                    raise
                except BaseException:  # noqa: S112 - SystemExit too; a test that raises is one that fails
                    continue
    except BaseException:
        return 0
    return passed
