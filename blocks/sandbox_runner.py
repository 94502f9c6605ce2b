"""The program inside the sandbox: calls one testing function on every row. Standard library only.

Started as `python -I -S sandbox_runner.py`. All messages are lines of JSON:

    stdin   {"name": …, "source": …, "user": uid or null, "limits": {"RLIMIT_AS": bytes, …},
             "packages": folder or null, "parent": pid to die with or null},
            then [token, input, expected, predicted] per row
    stdout  {"error": null or why the function cannot be loaded, "trace": text}, then per row
            {"token": the row's, "score": number, "stdout": text} or
            {"token": the row's, "error": text, "trace": text, "stdout": text}

It ends with its stdin. Nothing here is a defence once the function's code runs, for it shares this process: the defence
is the sandbox around it and the reader's suspicion of every reply. User and limits are set before, and cannot be
changed back.
"""

import io
import json
import linecache
import math
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from types import CodeType, FunctionType, ModuleType

MAX_ERROR_CHARS = 2_000
MAX_TRACE_CHARS = 4_000
MAX_PRINTED_CHARS = 2_000
PRINTED_LIMIT = 2**20
MAX_SCORE = 1e31  # the errors of regression are less, and so many of them can be added up
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STARRED = 0x04 | 0x08  # flags of code that takes *args or **kwargs
PARAMETERS = ("input_text", "expected_output", "predicted_output")


def main() -> None:
    """Answer every row of stdin on stdout."""
    os.closerange(3, 1024)  # what bubblewrap leaves open
    rows, reply = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    header = json.loads(rows.readline())
    if header["parent"] is not None:
        die_with(header["parent"])
    confine(header["user"], header["limits"])
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
        answer(described(error, file))
        return
    answer({"error": None})
    for line in rows:
        token, *row = json.loads(line)
        printed = Printed()
        try:
            with redirect_stdout(printed):
                value = function(*row)
            printed.check()
            outcome: dict[str, float | str | None] = {"score": number_of(value)}
        except BaseException as error:
            outcome = described(error, file, function)
        answer({"token": token, **outcome, "stdout": printed.getvalue()[:MAX_PRINTED_CHARS]})


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the process `parent` ends (Linux; elsewhere nothing happens)."""
    if sys.platform != "linux":
        return
    import ctypes  # takes as long to import as the rest of this program

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it has ended already


def confine(user: int | None, limits: dict[str, int]) -> None:
    """Become `user`, where one is given, and lower the limits of this process for good."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    for name, limit in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        lowest = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(number, (lowest, lowest))


class Printed(io.StringIO):
    """What a call prints, up to a limit."""

    exceeded = False

    def write(self, text: str) -> int:
        """As of any text stream; raises ValueError above the limit."""
        self.exceeded |= self.tell() + len(text) > PRINTED_LIMIT
        self.check()
        return super().write(text)

    def check(self) -> None:
        """Raises ValueError where more than the limit was printed."""
        if self.exceeded:
            raise ValueError(f"the function must not print more than {PRINTED_LIMIT:,} characters a row")


def load(name: str, source: str, file: str) -> Callable[..., object]:
    """The function `name` of the three parameters that `source` defines."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)  # tracebacks show lines of it
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
    """`value` as a float; only an int, float or bool of at most MAX_SCORE either way is one, exactly by type."""
    if type(value) not in (bool, int, float):
        kind = type(value)
        if kind.__module__ in ("builtins", "testing_function"):
            raise TypeError(f"the function must return a number, not {kind.__name__}")
        raise TypeError(f"the function must return a number, such as float(…) of its {kind.__module__}.{kind.__name__}")
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError(f"the function must return a finite number, not {number}")
    if abs(number) > MAX_SCORE:
        raise ValueError(f"the function must return a number from {-MAX_SCORE:g} to {MAX_SCORE:g}, not {number:g}")
    return number


def described(error: BaseException, file: str, function: object = None) -> dict[str, float | str | None]:
    """The traceback's last line, with the line number in the source: the error's, else where `function` begins; and
    the end of the traceback through the source, where it goes there.
    """
    text = traceback.format_exception_only(type(error), error)[-1].strip()[:MAX_ERROR_CHARS]
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != file:
        frames = frames.tb_next
    lines = [line for frame, line in traceback.walk_tb(frames) if frame.f_code.co_filename == file]
    wrong = error if isinstance(error, SyntaxError) and error.filename == file else None
    if wrong is not None and wrong.lineno:
        lines.append(wrong.lineno)
    if not lines and (code := _code(function)) is not None:
        lines.append(code.co_firstlineno)
    if lines:
        text += f" (line {lines[-1]})"
    if wrong is not None and wrong.text:
        text += f": {wrong.text.strip()[:100]}"
    if isinstance(error, ModuleNotFoundError):
        text += "; name its package in `dependencies`"
    if frames is None and wrong is None:
        return {"error": text}
    return {"error": text, "trace": "".join(traceback.format_exception(type(error), error, frames))[-MAX_TRACE_CHARS:]}


if __name__ == "__main__":
    main()
