"""The examples in deployments.yaml, which are comments, are what Prefect takes."""

import re
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._schedules import _construct_schedules
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.events.schemas.deployment_triggers import DeploymentTriggerTypes
from pydantic import TypeAdapter
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


def test_trigger_waits_for_a_flow_that_there_is(retrain: dict[str, Any]) -> None:
    (trigger,) = retrain["triggers"]
    built = TypeAdapter(DeploymentTriggerTypes).validate_python(trigger)
    assert built.parameters == {"pipeline_id": "pl-6pW1xCv8NjSa3GzEhY5uQk"}
    assert (PROJECT_ROOT / "flows" / f"{trigger['match_related']['prefect.resource.name']}.py").exists()
