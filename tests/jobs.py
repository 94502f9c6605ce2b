"""Small training jobs that tests run on the whole platform."""

import json
import time
from collections.abc import Callable
from typing import Any

from emissary.client import Client

ROWS = [
    {"messages": [{"role": "user", "content": f"Say {word}."}, {"role": "assistant", "content": word}]}
    for word in ("red", "green", "blue", "black", "white", "pink", "grey", "brown")
]
TINY = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "max_length": 64, "lora_r": 2, "max_new_tokens": 4}


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def upload(client: Client, project: str, rows: list[dict[str, Any]], name: str = "colours") -> str:
    """Id of a new dataset with these rows."""
    files = {"file": (f"{name}.jsonl", jsonl(rows))}
    return str(client.call("POST", f"/v1/projects/{project}/datasets", files=files)["id"])


def until(what: Callable[[], Any], wanted: Callable[[Any], bool], seconds: float = 180.0, pause: float = 0.25) -> Any:
    """Poll `what()` until it is as wanted; fails with the last value at the deadline.

    It looks less often the longer it takes, down to once in `pause` seconds: each look costs the servers what the
    awaited needs.
    """
    begun = time.monotonic()
    while True:
        value = what()
        if wanted(value):
            return value
        waited = time.monotonic() - begun
        assert waited < seconds, f"still {value}"
        time.sleep(min(0.05 + waited / 20, pause))


def ended(resource: dict[str, Any]) -> bool:
    return resource["status"] in ("Success", "Failed", "TimedOut", "Cancelled", "Deployed")


def profiled(client: Client, path: str) -> dict[str, Any]:
    """The detail of the dataset at `path`, once its profile is made."""
    found: dict[str, Any] = until(
        lambda: client.get(path), lambda detail: detail["profile_status"] not in ("Pending", "Running")
    )
    assert (found["profile_status"], found["profile_error"]) == ("Success", None)
    assert found["is_profiled"]
    return found
