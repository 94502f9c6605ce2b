"""The text that a judge reads."""

import pytest

from emissary.judges import Judge, checked_template

ROW = ("2 {predicted_output}?", "four", "{expected_output} {0.__class__}")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{predicted_output}", ROW[2]),
        ("Q: {input_text}\nA: {predicted_output}", f"Q: {ROW[0]}\nA: {ROW[2]}"),
        ("{predicted_output}{predicted_output}/{expected_output}", f"{ROW[2]}{ROW[2]}/four"),
        ("{{{predicted_output}}} {{}}", f"{{{ROW[2]}}} {{}}"),
    ],
)
def test_fields_are_filled_in_and_braces_of_the_row_mean_nothing(template: str, text: str) -> None:
    assert Judge(deployment_id="dp-1", input=checked_template(template)).text(*ROW) == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{answer} {predicted_output}", "no fields but {input_text}"),
        ("{predicted_output.__class__}", "no fields but"),
        ("{predicted_output[0]}", "no fields but"),
        ("{predicted_output!r}", "no fields but"),
        ("{predicted_output:>99999999}", "no fields but"),
        ("{predicted_output:{input_text}}", "no fields but"),
        ("{} {predicted_output}", "no fields but"),
        ("{0}{predicted_output}", "no fields but"),
        ("{predicted_output", "a brace too many or too few"),
        ("} {predicted_output}", "a brace too many or too few"),
        ("{input_text}", "must contain {predicted_output}"),
        ("", "must contain {predicted_output}"),
    ],
)
def test_other_templates_are_refused(template: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("{", r"\{")):
        checked_template(template)
