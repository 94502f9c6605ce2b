"""The examples in deployments.yaml, which are comments, are what Prefect takes."""

import re
from typing import Any
from uuid import uuid4

import pytest
import yaml
from prefect.cli.deploy._schedules import _construct_schedules
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.events.schemas.deployment_triggers import DeploymentTriggerTypes
from prefect.server.events.schemas.automations import AutomationCore
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from emissary.settings import PROJECT_ROOT


@pytest.fixture
def retrain() -> dict[str, Any]:
    """The flow's entry with its examples."""
    text = (PROJECT_ROOT / "deployments.yaml").read_text()
    text = re.sub(r"^    # (?=schedules:|triggers:|  )", "    ", text, flags=re.MULTILINE)
    (found,) = [entry for entry in yaml.safe_load(text)["deployments"] if entry["name"] == "retrain"]
    return dict(found)


def test_schedules_of_every_kind_are_ones(retrain: dict[str, Any]) -> None:
    built = _construct_schedules(retrain, {}, console=Console(), is_interactive=lambda: False)
    assert [type(each["schedule"]) for each in built] == [CronSchedule, IntervalSchedule, RRuleSchedule]
    assert len({each["slug"] for each in built}) == 3


@pytest.mark.parametrize("kind", ["event", "compound", "sequence", "metric"])
def test_trigger_of_every_kind_is_one(retrain: dict[str, Any], kind: str) -> None:
    (trigger,) = [each for each in retrain["triggers"] if each["type"] == kind]
    built = TypeAdapter(DeploymentTriggerTypes).validate_python(trigger)
    assert built.parameters == {"pipeline_id": "pl-6pW1xCv8NjSa3GzEhY5uQk"}
    for event in trigger.get("triggers", [trigger] if kind == "event" else []):
        assert (PROJECT_ROOT / "flows" / f"{event['match_related']['prefect.resource.name']}.py").exists()
    built.set_deployment_id(uuid4())
    automation = built.as_automation().model_dump(mode="json")
    if kind == "metric":  # as its comment says
        with pytest.raises(ValidationError):
            AutomationCore.model_validate(automation)
    else:
        AutomationCore.model_validate(automation)
