"""The program inside the sandbox: calls one testing function on every row. Standard library only.

Started by `blocks/sandbox.py` as `python -I -S sandbox_runner.py`. All messages are lines of JSON:

    stdin   {"name": …, "source": …, "limits": {"RLIMIT_AS": bytes, …}}, then [input, expected, predicted] per row
    stdout  {"error": null or why the function cannot be loaded}, then {"score": number} or {"error": text} per row

Nothing here is a defence once the function's code runs, for it shares this process: the defence is the sandbox
around it and the reader's suspicion of every reply. The limits are set before, and cannot be raised again.
"""

import json
import math
import os
import resource
import sys
import traceback
from collections.abc import Callable
from types import ModuleType

MAX_ERROR_CHARS = 2_000


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
    try:
        function = load(header["name"], header["source"], file)
    except BaseException as error:  # SystemExit too: whatever it raises, there is a reply
        answer({"error": describe(error, file)})
        return
    answer({"error": None})
    for row in rows:
        try:
            answer({"score": number_of(function(*json.loads(row)))})
        except BaseException as error:
            answer({"error": describe(error, file)})


def load(name: str, source: str, file: str) -> Callable[..., object]:
    """The function `name` that `source` defines."""
    module = ModuleType("testing_function")
    sys.modules[module.__name__] = module  # dataclasses and pickle look the module up
    exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102 - the purpose
    function = module.__dict__.get(name)
    if not callable(function):
        raise TypeError(f"the source defines no function {name!r}")
    return function  # type: ignore[no-any-return]


def number_of(value: object) -> float:
    """`value` as a float; only a finite int, float or bool is one, exactly by type."""
    if type(value) not in (bool, int, float):
        raise TypeError(f"the function must return a number, not {type(value).__name__}")
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"the function must return a finite number, not {number}")
    return number


def describe(error: BaseException, file: str) -> str:
    """The traceback's last line, with the line number in the function's source."""
    text = traceback.format_exception_only(type(error), error)[-1].strip()[:MAX_ERROR_CHARS]
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        lines.append(error.lineno)
    return f"{text} (line {lines[-1]})" if lines else text


if __name__ == "__main__":
    main()
