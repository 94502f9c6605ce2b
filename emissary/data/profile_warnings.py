"""What the owner of a dataset should know of its profile, in sentences."""

from typing import Any

from emissary.data.profiling import DatasetProfile, Outliers

_VERY_UNEVEN = 10


def warnings_of(profile: DatasetProfile, report: dict[str, Any]) -> list[str]:
    """Sentences on what is unusual in the profile, and on the copies that the report counts."""
    said = []
    for name, field in profile.fields.items():
        if field.empty:
            said.append(f"The field '{name}' is empty in {_rows(field.empty)}.")
        if field.constant:
            said.append(f"The field '{name}' is the same in every row, so there is nothing to learn from it.")
    if profile.imbalance is not None and profile.imbalance >= _VERY_UNEVEN:
        said.append(
            f"The largest class has {profile.imbalance:.0f} times the rows of the smallest; rebalance_data evens that."
        )
    if report["duplicates"]:
        said.append(f"{_rows(report['duplicates'])} repeat an earlier row exactly.")
    near = profile.near_duplicates
    if near.count:
        later, earlier = near.pairs[0]
        said.append(
            f"{near.count} of {_rows(near.rows)} that were compared have nearly the same input as an earlier one, such "
            f"as row {later} and row {earlier}."
        )
    if (tokens := profile.tokens) is not None and tokens.over_context:
        said.append(
            f"{tokens.over_context} of {_rows(tokens.rows)} that were counted are longer than the context of "
            f"{tokens.base_model}, {tokens.context} tokens, and are cut in training."
        )
    if profile.target is not None and profile.target.outliers is not None:
        said += _far_off("targets", profile.target.outliers)
    for name, field in profile.fields.items():
        if field.characters is not None and field.characters.outliers is not None:
            said += _far_off(f"lengths of '{name}' in characters", field.characters.outliers)
    if (leakage := profile.leakage) is not None and leakage.rows:
        first = leakage.test_rows[0]
        said.append(
            f"The input of {_rows(leakage.rows)} of the test dataset {leakage.test_dataset_id}, such as its row "
            f"{first}, is in this dataset too; remove them from either, or results are better than on unseen inputs."
        )
    return said


def _rows(count: int) -> str:
    return f"{count} row" + ("" if count == 1 else "s")


def _far_off(what: str, outliers: Outliers) -> list[str]:
    if not outliers.count:
        return []
    first = outliers.rows[0]
    return [
        f"{outliers.count} {what} are far from the others, outside {outliers.low:g} to {outliers.high:g}, such as that "
        f"of row {first}."
    ]
