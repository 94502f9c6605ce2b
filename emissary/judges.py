"""Judges: testing functions that are a deployment's classification or regression of an answer, instead of Python."""

from string import Formatter

from pydantic import BaseModel, ConfigDict

from emissary.testing_function_files import TestingFunction

FIELDS = ("input_text", "expected_output", "predicted_output")
ANSWER_ALONE = "{predicted_output}"


class Judge(BaseModel):
    """Which deployment is asked, for the probability of which label (None: a regression's number), and what it reads:
    `input` is a template with `FIELDS` in braces.
    """

    model_config = ConfigDict(frozen=True)

    deployment_id: str
    label: str | None = None
    input: str = ANSWER_ALONE

    def text(self, input_text: str, expected_output: str, predicted_output: str) -> str:
        """What the deployment reads of a row. Braces in the row itself mean nothing."""
        values = dict(zip(FIELDS, (input_text, expected_output, predicted_output), strict=True))
        parts = Formatter().parse(self.input)
        return "".join(literal + (values[field] if field is not None else "") for literal, field, _, _ in parts)


class JudgeFunction(BaseModel):
    """A testing function that asks a judge."""

    model_config = ConfigDict(frozen=True)

    name: str
    judge: Judge


AnyFunction = TestingFunction | JudgeFunction
"""A testing function as it is run: in the sandbox, or by asking a judge."""


def checked_template(value: str) -> str:
    """`value`, which is a template with `FIELDS` and nothing else in braces. Raises ValueError with what is wrong."""
    known = ", ".join(f"{{{field}}}" for field in FIELDS)
    try:
        parts = [part for part in Formatter().parse(value) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"has a brace too many or too few ({error}); write {{{{ or }}}} for a brace") from None
    for _, field, spec, conversion in parts:
        if field not in FIELDS or spec or conversion:
            raise ValueError(f"must have no fields but {known}, as they are; write {{{{ or }}}} for a brace")
    if not any(field == "predicted_output" for _, field, _, _ in parts):
        raise ValueError(f"must contain {ANSWER_ALONE}, or every answer would be judged alike")
    return value
