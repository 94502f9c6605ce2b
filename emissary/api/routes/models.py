"""Base models, and for OpenAI's clients every model that can be called."""

from collections.abc import Mapping
from typing import Any

from emissary import base_models
from emissary.api.auth import ByBearer, CurrentCaller
from emissary.api.routing import keyed_router
from emissary.errors import NotFound
from emissary.schemas.models import BaseModelSummary, ModelList, ModelObject
from emissary.store import deployments
from emissary.store.database import transaction

router = keyed_router("Base Models")


def _summary(name: str) -> BaseModelSummary:
    entry = base_models.get(name)
    return BaseModelSummary(
        name=name,
        type=entry.type,
        task_types=list(entry.task_types),
        parameter_template=_shown(entry.parameter_template),
        grpo_parameter_template=_shown(base_models.grpo_template(entry)),
    )


def _shown(template: Mapping[str, Any]) -> dict[str, Any]:
    """The contract's templates hold text and numbers only."""
    return {key: value for key, value in template.items() if not isinstance(value, bool)}


async def _callable(organization_id: str) -> list[ModelObject]:
    """Base models and the organization's deployments that answer, or will once their engine is back."""
    async with transaction() as session:
        served = await deployments.list_callable(session, organization_id)
    return [
        *(ModelObject(id=name, created=0, owned_by="emissary") for name in base_models.catalogue()),
        *(
            ModelObject(id=row.name, created=int(row.created_at.timestamp()), owned_by=organization_id)
            for row in served
        ),
    ]


@router.get("/v1/models", operation_id="listBaseModels", summary="List base models")
async def list_base_models(caller: CurrentCaller, by_bearer: ByBearer) -> list[BaseModelSummary] | ModelList:
    """All base models of the catalogue with their default hyperparameters.

    With the key as Bearer token, as OpenAI's clients send it: the models that can be called, as OpenAI lists them.
    """
    if by_bearer:
        return ModelList(data=await _callable(caller.organization_id))
    return [_summary(name) for name in base_models.catalogue()]


@router.get("/v1/models/{base_model_name}", operation_id="retrieveBaseModelByName", summary="Retrieve base model")
async def retrieve_base_model(
    base_model_name: str, caller: CurrentCaller, by_bearer: ByBearer
) -> BaseModelSummary | ModelObject:
    """One base model; with the key as Bearer token, one model that can be called."""
    if by_bearer:
        for model in await _callable(caller.organization_id):
            if model.id == base_model_name:
                return model
        raise NotFound(f"There is no deployment or base model {base_model_name!r}.")
    if base_model_name not in base_models.catalogue():
        raise NotFound(f"There is no base model {base_model_name!r}.")
    return _summary(base_model_name)
