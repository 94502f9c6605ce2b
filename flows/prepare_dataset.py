"""prepare_dataset: normalise an uploaded dataset to Parquet → profile its rows → show that."""

from prefect import flow

from tasks.preparing import prepare
from tasks.profile_report import show
from tasks.profiling import give_way, make_profile, tokenizer_of
from tasks.registering import dataset


@flow(name="prepare_dataset")
async def prepare_dataset(dataset_id: str, test_dataset_id: str | None = None, base_model: str | None = None) -> str:
    """Prepare a dataset for every later step, and say what its rows are like; returns the key of the prepared rows.

    Args:
        dataset_id: Id of an uploaded dataset, such as `ds-…`.
        test_dataset_id: A dataset of the same project that is to be tested on: which of its rows are in this one too?
        base_model: The base model, on the worker's machine, whose tokenizer counts. Empty: the first that fits.
    """
    tokenizer_of(base_model)
    row = await dataset(dataset_id, test_dataset_id)
    give_way()
    rows_key = await prepare(row.id)
    test_key = await prepare(test_dataset_id) if test_dataset_id else None
    profile, profile_key = await make_profile(row, rows_key, test_dataset_id, test_key, base_model)
    await show(row, profile, profile_key)
    return rows_key
