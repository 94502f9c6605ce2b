"""Events as programs read them, and as people do."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from emissary.settings import settings
from emissary.store.pipeline_tables import SubscriptionDelivery

_SENTENCES = {
    "ping": "{name} is told of events here",
    "training_job.started": "Training job {name} has started",
    "training_job.succeeded": "Training job {name} has succeeded",
    "training_job.failed": "Training job {name} has failed",
    "training_job.timed_out": "Training job {name} ran out of time",
    "training_job.cancelled": "Training job {name} was cancelled",
    "deployment.deployed": "Deployment {name} is deployed",
    "deployment.updated": "Deployment {name} serves another checkpoint",
    "deployment.deactivated": "Deployment {name} is deactivated with its engine",
    "deployment.reactivated": "Deployment {name} is back with its engine",
    "deployment.failed": "Deployment {name} has failed",
    "deployment.deleted": "Deployment {name} is deleted",
    "pipeline_run.waiting": "Pipeline {name} waits for approval",
    "pipeline_run.promoted": "Pipeline {name} has promoted a new checkpoint",
    "pipeline_run.not_promoted": "Pipeline {name} has not promoted the new checkpoint",
    "pipeline_run.rolled_back": "Pipeline {name} has rolled back",
    "pipeline_run.skipped": "Pipeline {name} skipped a run",
    "pipeline_run.failed": "Pipeline {name} has failed",
    "pipeline_run.cancelled": "A run of the pipeline {name} was cancelled",
}
_COLLECTIONS = {
    "ping": "subscriptions",
    "training_job": "training-jobs",
    "deployment": "deployments",
    "pipeline_run": "pipelines/{pipeline_id}/runs",
}


def payload(delivery: SubscriptionDelivery) -> bytes:
    """What is posted to a URL: `type`, `timestamp` and `data`, the same at each attempt."""
    content = {
        "type": delivery.event,
        "timestamp": delivery.created_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": delivery.data | {"url": _url(delivery)},
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def subject(delivery: SubscriptionDelivery) -> str:
    """The event in a few words."""
    return _SENTENCES[delivery.event].format(name=delivery.data["name"])


def text(delivery: SubscriptionDelivery) -> str:
    """What happened, why, by which numbers, and where to look."""
    data = delivery.data
    lines = [data.get("error") or data.get("reason"), *_asked(data, delivery.event), *_numbers(data), _url(delivery)]
    return "\n".join(line for line in lines if line)


def _url(delivery: SubscriptionDelivery) -> str:
    collection = _COLLECTIONS[delivery.event.partition(".")[0]].format_map(delivery.data)
    return f"{settings().api_url}/v1/projects/{delivery.data['project_id']}/{collection}/{delivery.data['id']}"


def _asked(data: Mapping[str, Any], event: str) -> list[str]:
    if event != "pipeline_run.waiting":
        return []
    until = datetime.fromtimestamp(data["approval"]["until"], UTC)
    return [
        f"It passed the gate and waits for a person's approval until {until:%Y-%m-%d %H:%M} UTC: "
        f"emissary pipelines approve {data['name']} {data['id']}, or Resume in Prefect's UI."
    ]


def _numbers(data: Mapping[str, Any]) -> list[str]:
    decision = data.get("decision") or {}
    theirs = (decision.get("champion") or {}).get("scores", {})
    ours = (decision.get("challenger") or {}).get("scores") or data.get("scores") or {}
    return [
        f"{name}: {score:.4g}" + (f", deployed now {theirs[name]:.4g}" if name in theirs else "")
        for name, score in ours.items()
        if isinstance(score, int | float)
    ]
