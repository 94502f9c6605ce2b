"""Base models."""

from emissary import base_models
from emissary.api.routing import keyed_router
from emissary.errors import NotFound
from emissary.schemas.models import BaseModelSummary

router = keyed_router("Base Models")


def _summary(name: str) -> BaseModelSummary:
    entry = base_models.get(name)
    return BaseModelSummary(
        name=name,
        type=entry.type,
        task_types=list(entry.task_types),
        parameter_template=dict(entry.parameter_template),
        grpo_parameter_template=base_models.grpo_template(entry),
    )


@router.get("/v1/models", operation_id="listBaseModels", summary="List base models")
async def list_base_models() -> list[BaseModelSummary]:
    """All base models of the catalogue with their default hyperparameters."""
    return [_summary(name) for name in base_models.catalogue()]


@router.get("/v1/models/{base_model_name}", operation_id="retrieveBaseModelByName", summary="Retrieve base model")
async def retrieve_base_model(base_model_name: str) -> BaseModelSummary:
    """One base model."""
    if base_model_name not in base_models.catalogue():
        raise NotFound(f"There is no base model {base_model_name!r}.")
    return _summary(base_model_name)
