"""What schemathesis does around every call: few things that run, and nothing deleted that later calls go by.

Loaded by schemathesis (`hooks` in the configuration that tests/contract/fuzzing.py writes), not by pytest.
"""

import json
import os
from typing import Any

import schemathesis

from emissary.base_models import HubSource, catalogue

# Each would be a process with a model in it.
RUNS = (
    "createEngine",
    "createTrainingJob",
    "createGRPOTrainingJob",
    "createDeployment",
    "deployOnEngine",
    "createPipeline",
    "createPipelineRun",
)
MOST_RUNS = 2
KEPT = frozenset(json.loads(os.environ["FUZZ_KEPT"]))
made = dict.fromkeys(RUNS, 0)
# The contract's examples name them, and an engine whose model cannot be fetched answers 503.
FROM_THE_HUB = {name for name, entry in catalogue().items() if isinstance(entry.source, HubSource)}
PACKAGED = "SmolLM2-135M-Instruct"


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Name a model that is here, and one that nobody knows once enough was made; spare what calls refer to."""
    name = case.operation.definition.raw.get("operationId")
    if name in RUNS and isinstance(case.body, dict) and str(case.body.get("base_model")) in FROM_THE_HUB:
        case.body["base_model"] = PACKAGED
    # Every upload would train.
    triggers = case.body.get("triggers") if isinstance(case.body, dict) else None
    if isinstance(triggers, dict) and triggers.get("on_dataset") is True:
        triggers["on_dataset"] = False
    if made.get(name, 0) >= MOST_RUNS:
        if "pipeline_id" in case.path_parameters:
            case.path_parameters["pipeline_id"] = "nobody"
        body = case.body if isinstance(case.body, dict) else {}
        for part in (body, body.get("train")):
            for field in ("base_model", "training_job_id", "training_id"):
                if isinstance(part, dict) and isinstance(part.get(field), str):
                    part[field] = "nobody"
    if case.method.upper() == "DELETE":
        deleted = case.operation.path.rpartition("{")[2].rstrip("}")
        if case.path_parameters.get(deleted) in KEPT:
            case.path_parameters[deleted] = "nobody"


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Count what was made."""
    name = case.operation.definition.raw.get("operationId")
    if name in made and response.status_code == 201:
        made[name] += 1
