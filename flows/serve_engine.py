"""serve_engine: load the base model, serve it, watch idleness. The run lives as long as the engine."""

from prefect import flow

from emissary.schemas.engines import EngineCreate
from tasks.attempt import end_if_interrupted
from tasks.base_model import base_model_files
from tasks.registering import engine
from tasks.run_state import enter
from tasks.serving import load_generator, serving, until_idle


@flow(name="serve_engine")
async def serve_engine(engine_id: str | None = None, request: EngineCreate | None = None) -> str:
    """Serve a base model and any number of adapters until nobody has called for a while, or the run is cancelled.

    Args:
        engine_id: An existing engine, as the API and its schedule pass it. Leave empty to register one from this form.
        request: The new engine: the same fields as POST /v1/engines.
    """
    row = await engine(engine_id, request)
    if row is None:
        return "Nothing to do: the engine runs already, or its schedule has it ended now."
    model_dir = await base_model_files(row.base_model)
    generator = await load_generator(model_dir, row.task_type)
    async with serving(row, generator) as server:
        enter("Active")
        said = await until_idle(row, server)
    end_if_interrupted()
    return said
