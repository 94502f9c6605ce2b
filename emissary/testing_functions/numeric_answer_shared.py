"""Numeric answer: the last number of the answer is that of the expected output."""

import re
from decimal import Decimal
from fractions import Fraction

# Digits inside a word, as in H2O, or behind the first dot of 1.2.3 are no number of their own.
_NUMBER = re.compile(
    r"(?<!\w)(?<!\d\.)(?P<minus>[-−]?)[$€£¥]?"
    r"(?P<digits>(?>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\.)\.\d+))(?P<exponent>[eE][+-]?\d{1,3}(?!\d))?"
    r"(?![eE][+-]?\d)"  # with more digits it is a number too large or too small to mean anything
)


def numeric_answer_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """1.0 where the last number of the answer equals the last one of the expected output, else 0.0.

    `1,000`, `1000.0`, `$1000` and `1e3` are the same number, and a per cent sign behind it is left out. An integer
    must be met exactly. Where the expected number has decimals, as 3.14, the answer may have more of them: it may be
    off by half a unit of the last one. Raises ValueError where the expected output has no number.
    """
    expected, predicted = _last_number(expected_output), _last_number(predicted_output)
    if expected is None:
        raise ValueError("the expected output has no number; correct the row")
    if predicted is None:
        return 0.0
    exponent = int(expected.as_tuple().exponent)
    if expected == predicted or exponent >= 0:
        return float(expected == predicted)
    half = Fraction(Decimal((0, (5,), exponent - 1)))
    return float(abs(Fraction(expected) - Fraction(predicted)) <= half)


def _last_number(text: str) -> Decimal | None:
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007 - the last one is what is wanted
        pass
    if last is None:
        return None
    minus = "-" if last["minus"] else ""
    return Decimal(minus + last["digits"].replace(",", "") + (last["exponent"] or ""))
