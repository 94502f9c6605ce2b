"""stop_engine: end an engine when a window of its schedule closes."""

from prefect import flow

from tasks.stopping import end_outside_schedule


@flow(name="stop_engine", retries=3, retry_delay_seconds=5)
async def stop_engine(engine_id: str) -> str:
    """End the run of an engine whose schedule has it ended now; run by the engine's schedule in Prefect.

    Args:
        engine_id: The engine, such as `engine-…`.
    """
    return await end_outside_schedule(engine_id)
