"""prepare_dataset: an uploaded dataset, normalised to Parquet once for every later step."""

from prefect import flow

from tasks.preparing import prepare


@flow(name="prepare_dataset", flow_run_name="prepare-{dataset_id}", log_prints=False)
async def prepare_dataset(dataset_id: str) -> str:
    """Normalise the dataset; returns the key of the prepared artifact. Does nothing when it is prepared already.

    Args:
        dataset_id: Id of an uploaded dataset, such as `ds-…`.
    """
    return await prepare(dataset_id)
