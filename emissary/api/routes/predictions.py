"""Embeddings, classification and regression: requests are passed on to the engine that holds the model."""

from fastapi.responses import Response

from emissary.api.auth import CurrentCaller
from emissary.api.inference_proxy import pass_on
from emissary.api.routing import keyed_router
from emissary.schemas.predictions import (
    ClassificationAnswer,
    ClassificationRequest,
    Comparison,
    EmbeddingRequest,
    EmbeddingsAnswer,
    RegressionAnswer,
    RegressionRequest,
)

router = keyed_router("Inference")


@router.post(
    "/v1/embeddings",
    operation_id="getEmbeddingsFromDeployment",
    summary="Embeddings",
    response_model=Comparison | EmbeddingsAnswer,
)
async def embeddings(body: EmbeddingRequest, caller: CurrentCaller) -> Response:
    """Embed a text or several; with `target`, embed both texts and compare them."""
    return await pass_on("/v1/embeddings", body, body.model, caller)


@router.post(
    "/v1/classification",
    operation_id="getClassificationFromDeployment",
    summary="Classification",
    response_model=ClassificationAnswer,
)
async def classification(body: ClassificationRequest, caller: CurrentCaller) -> Response:
    """Score each label for a text or several; a regression answers under the label `value`."""
    return await pass_on("/v1/classification", body, body.model, caller)


@router.post(
    "/v1/regression",
    operation_id="getRegressionFromDeployment",
    summary="Regression",
    response_model=RegressionAnswer,
)
async def regression(body: RegressionRequest, caller: CurrentCaller) -> Response:
    """Predict a number for a text or several."""
    return await pass_on("/v1/regression", body, body.model, caller)
