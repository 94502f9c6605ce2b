"""What the owner of a dataset should know of its profile, in sentences."""

from typing import Any

from emissary.data.profiling import Contradictions, DatasetProfile, NearDuplicates, Outliers

_VERY_UNEVEN = 10


def warnings_of(profile: DatasetProfile, report: dict[str, Any]) -> list[str]:
    """Sentences on what is unusual in the profile, and on the copies that the report counts."""
    said = []
    for name, field in profile.fields.items():
        if field.empty:
            said.append(f"The field '{name}' is empty in {_rows(field.empty)}.")
        if field.constant:
            said.append(f"The field '{name}' is the same in every row, so there is nothing to learn from it.")
    if profile.constant_answer:
        said.append(
            "The answer, the last of 'messages', is the same in every row, so there is nothing to learn from it."
        )
    classes: dict[str, int] = report["class_counts"]
    if empty := [name for name, count in classes.items() if not count]:
        have = "has" if len(empty) == 1 else "have"
        said.append(
            f"{len(empty)} of {len(classes)} classes, such as {empty[0][:60]!r}, {have} no row at all and cannot be "
            "learnt; add rows, or leave the label out."
        )
    if profile.imbalance is not None and profile.imbalance >= _VERY_UNEVEN:
        said.append(
            f"The largest class has {profile.imbalance:.0f} times the rows of the smallest; rebalance_data evens that."
        )
    if report["duplicates"]:
        repeat = "repeats" if report["duplicates"] == 1 else "repeat"
        said.append(f"{_rows(report['duplicates'])} {repeat} an earlier row exactly.")
    said += [f"{each}." for each in _compared(profile.near_duplicates, "nearly the same input as an earlier one")]
    against = _compared(profile.contradictions, "the input of an earlier one and another answer")
    said += [f"{each}; correct one of them." for each in against]
    if (tokens := profile.tokens) is not None and tokens.over_context:
        are = "is" if tokens.over_context == 1 else "are"
        said.append(
            f"{tokens.over_context} of {_rows(tokens.rows)} that were counted {are} longer than the context of "
            f"{tokens.base_model}, {tokens.context} tokens, and {are} cut in training."
        )
    if profile.target is not None and profile.target.outliers is not None:
        said += _far_off("target", "targets", profile.target.outliers)
    for name, field in profile.fields.items():
        if field.characters is not None and field.characters.outliers is not None:
            of = f"of '{name}' in characters"
            said += _far_off(f"length {of}", f"lengths {of}", field.characters.outliers)
    if (leakage := profile.leakage) is not None and leakage.rows:
        first = leakage.test_rows[0]
        said.append(
            f"The input of {_rows(leakage.rows)} of the test dataset {leakage.test_dataset_id}, such as its row "
            f"{first}, is in this dataset too; remove them from either, or results are better than on unseen inputs."
        )
    return said


def _compared(found: NearDuplicates | Contradictions, what: str) -> list[str]:
    """How many of the rows that were compared have `what`, with an example; none where none have."""
    if not found.count:
        return []
    later, earlier = found.pairs[0]
    have = "has" if found.count == 1 else "have"
    rows = f"{found.count} of {_rows(found.rows)} that were compared"
    return [f"{rows} {have} {what}, such as row {later} and row {earlier}"]


def _rows(count: int) -> str:
    return f"{count} row" + ("" if count == 1 else "s")


def _far_off(one: str, several: str, outliers: Outliers) -> list[str]:
    if not outliers.count:
        return []
    first = outliers.rows[0]
    outside = f"far from the others, outside {outliers.low:g} to {outliers.high:g}"
    if outliers.count == 1:
        return [f"1 {one} is {outside}, that of row {first}."]
    return [f"{outliers.count} {several} are {outside}, such as that of row {first}."]
