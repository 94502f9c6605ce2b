r"""Regular expression: the pattern in the expected output is found in the answer."""

import re
import signal

_SECONDS = 1.0


class _TimeUp(Exception):
    pass


def _time_up(_number: int, _frame: object) -> None:
    raise _TimeUp


def regex_match_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    r"""1.0 where the pattern matches anywhere in the answer, else 0.0; with \A and \Z around it, the whole answer.

    Patterns are those of Python's `re`; white space at both ends of the answer is left out. One that is not found
    within a second, for it backtracks, or that takes more memory than there is, has no match. Raises ValueError where
    the expected output is no pattern.
    """
    try:
        pattern = re.compile(expected_output.strip("\r\n"))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the expected output is no regular expression: {error}; correct the row") from None
    before = signal.signal(signal.SIGALRM, _time_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, _SECONDS)
        return float(pattern.search(predicted_output.strip()) is not None)
    except (_TimeUp, MemoryError):
        return 0.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
