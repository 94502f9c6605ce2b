"""Telling trackers, MLflow and Weights & Biases, of training jobs: a process beside the API, one for each tracker."""

from importlib.util import find_spec

from emissary.errors import InvalidInput
from emissary.settings import Settings

_PACKAGES = {"mlflow": "mlflow-skinny", "wandb": "wandb"}


def check(chosen: Settings, environment: dict[str, str]) -> None:
    """Raises InvalidInput where a tracker that EMISSARY_REPORT_TO names cannot be used as things are."""
    for name in chosen.report_to:
        if find_spec(name) is None:
            raise InvalidInput(
                f"EMISSARY_REPORT_TO names {name}, but the package {_PACKAGES[name]} is not installed: "
                f"pip install 'emissary-pipelines[{name}]', or leave {name} out."
            )
    if "mlflow" in chosen.report_to and not environment.get("MLFLOW_TRACKING_URI"):
        raise InvalidInput(
            "EMISSARY_REPORT_TO names mlflow, but nothing says where it is: set MLFLOW_TRACKING_URI to its server, "
            "such as http://mlflow.internal:5000, or leave mlflow out."
        )
