"""The program inside the sandbox: calls one testing function on every row. Standard library only.

Started by `blocks/sandbox.py` as `python -I -S sandbox_runner.py`. All messages are lines of JSON:

    stdin   {"name": …, "source": …, "limits": {"RLIMIT_AS": bytes, …}, "packages": folder or null},
            then [input, expected, predicted] per row
    stdout  {"error": null or why the function cannot be loaded},
            then {"score": number, "stdout": text} or {"error": text, "stdout": text} per row

Nothing here is a defence once the function's code runs, for it shares this process: the defence is the sandbox
around it and the reader's suspicion of every reply. The limits are set before, and cannot be raised again.
"""

import io
import json
import math
import os
import resource
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from types import CodeType, FunctionType, ModuleType

MAX_ERROR_CHARS = 2_000
MAX_PRINTED_CHARS = 2_000
_STARRED = 0x04 | 0x08  # flags of code that takes *args or **kwargs
PARAMETERS = ("input_text", "expected_output", "predicted_output")


def main() -> None:
    """Answer every row of stdin on stdout."""
    rows, reply = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    header = json.loads(rows.readline())
    for name, limit in header["limits"].items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(number, (lowest, lowest))
    # From here on, what the function prints or reads touches neither the replies nor the rows.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)

    def answer(message: dict[str, float | str | None]) -> None:
        reply.write(json.dumps(message).encode() + b"\n")

    file = f"{header['name']}.py"
    if header["packages"] is not None:
        sys.path.append(header["packages"])  # behind the standard library, as installed packages are
    try:
        function = load(header["name"], header["source"], file)
    except BaseException as error:  # SystemExit too: whatever it raises, there is a reply
        answer({"error": describe(error, file)})
        return
    answer({"error": None})
    for row in rows:
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                value = function(*json.loads(row))
            outcome: dict[str, float | str | None] = {"score": number_of(value)}
        except BaseException as error:
            outcome = {"error": describe(error, file, function)}
        answer(outcome | {"stdout": printed.getvalue()[:MAX_PRINTED_CHARS]})


def load(name: str, source: str, file: str) -> Callable[..., object]:
    """The function `name` of the three parameters that `source` defines."""
    module = ModuleType("testing_function")
    sys.modules[module.__name__] = module  # dataclasses and pickle look the module up
    exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the purpose
    function = module.__dict__.get(name)
    if not callable(function):
        others = [
            f"{other!r} (line {value.__code__.co_firstlineno})"
            for other, value in module.__dict__.items()
            if isinstance(value, FunctionType) and value.__code__.co_filename == file
        ]
        raise TypeError(f"the source defines no function {name!r}" + (f", only {', '.join(others)}" if others else ""))
    code = _code(function)
    if code is None or not _takes_three(code):
        line = f" (line {code.co_firstlineno})" if code is not None else ""
        raise TypeError(f"the function {name!r} must take exactly the parameters {', '.join(PARAMETERS)}{line}")
    return function  # type: ignore[no-any-return]


def _code(function: object) -> CodeType | None:
    """The code of a function, also behind decorators that keep what they wrap."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return getattr(function, "__code__", None)


def _takes_three(code: CodeType) -> bool:
    more = code.co_kwonlyargcount or code.co_flags & _STARRED
    return code.co_varnames[: code.co_argcount] == PARAMETERS and not more


def number_of(value: object) -> float:
    """`value` as a float; only a finite int, float or bool is one, exactly by type."""
    if type(value) not in (bool, int, float):
        raise TypeError(f"the function must return a number, not {type(value).__name__}")
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"the function must return a finite number, not {number}")
    return number


def describe(error: BaseException, file: str, function: object = None) -> str:
    """The traceback's last line, with the line number in the source: the error's, else where `function` begins."""
    text = traceback.format_exception_only(type(error), error)[-1].strip()[:MAX_ERROR_CHARS]
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        lines.append(error.lineno)
    if not lines and (code := _code(function)) is not None:
        lines.append(code.co_firstlineno)
    return f"{text} (line {lines[-1]})" if lines else text


if __name__ == "__main__":
    main()
