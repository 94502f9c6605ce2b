"""schemathesis against the running platform, in an organization of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from emissary.client import Client
from emissary.settings import PROJECT_ROOT
from emissary.up import Platform
from tests.contract.contract import Json, contract, operations, resolved
from tests.jobs import ROWS, jsonl, until
from tests.keys import make_key

MODEL = "SmolLM2-135M-Instruct"
# A refusal of a well-formed request may be right: what it refers to is not there, or two fields contradict each other.
REFUSALS = ["2xx", "400", "401", "403", "404", "409", "503"]

# Methods that the contract lacks and our document has are no findings, so coverage goes by ours.
PHASES = {"our document": "examples,coverage,fuzzing,stateful", "the contract": "examples,fuzzing,stateful"}


def fuzzable_contract(ours: Json) -> Json:
    """The contract, with what the design adds to it: refusals that it does not list, and null for a field left out."""
    content = json.loads(json.dumps(contract()))
    content["components"]["schemas"]["Error"] = ours["components"]["schemas"]["Error"]
    documented = operations(ours)
    for operation in operations(content).values():
        known = documented[operation.id].definition["responses"] if operation.id in documented else {}
        for code, response in known.items():
            if int(code) >= 400:
                operation.definition["responses"].setdefault(code, response)
        request = operation.definition.get("requestBody", {})
        for body in request.get("content", {}).values():
            _nullable(content, body["schema"])
            if not request.get("required"):
                body["schema"] = {"anyOf": [body["schema"], {"type": "null"}]}
    return dict(content)


def _nullable(content: Json, schema: Json) -> None:
    schema = resolved(content, schema)
    for name, field in schema.get("properties", {}).items():
        _nullable(content, field)
        if name not in schema.get("required", []):
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}]}


def prepare(platform: Platform) -> tuple[Client, dict[str, str]]:
    """A client of the fuzz's organization, and ids of things there that calls may refer to."""
    client = Client(platform.api_url, make_key("fuzz"))
    project = str(client.post("/v1/projects", {"name": "fuzz"})["id"])
    files = {"file": ("colours.jsonl", jsonl(ROWS))}
    dataset = str(client.call("POST", f"/v1/projects/{project}/datasets", files=files)["id"])
    jobs = f"/v1/projects/{project}/training-jobs"
    job = str(client.post(jobs, {"base_model": MODEL, "train_dataset_id": dataset})["id"])
    client.post(f"{jobs}/{job}/cancel")
    return client, {"project_id": project, "dataset_id": dataset, "training_job_id": job}


def clean(client: Client) -> None:
    """End and delete all that runs in the organization."""
    for project in client.get("/v1/projects"):
        inside = f"/v1/projects/{project['id']}"
        for row in client.get(f"{inside}/pipelines"):
            pipeline = f"{inside}/pipelines/{row['id']}"
            client.http.post(f"{pipeline}/pause")
            for run in client.get(f"{pipeline}/runs"):
                client.http.post(f"{pipeline}/runs/{run['id']}/cancel")
        for row in client.get(f"{inside}/deployments"):
            client.http.delete(f"{inside}/deployments/{row['id']}")
        for row in client.get(f"{inside}/training-jobs"):
            client.http.post(f"{inside}/training-jobs/{row['id']}/cancel")
    for engine in client.get("/v1/engines"):
        client.http.delete(f"/v1/engines/{engine['id']}")
    until(lambda: client.get("/v1/engines"), lambda engines: not engines, seconds=60)


def configuration(ids: dict[str, str], *, examples: int, scenarios: int) -> str:
    """schemathesis.toml: the key, known ids for half of the calls, what counts as a refusal, how much."""
    names = {"base_model": MODEL, "train_dataset_id": ids["dataset_id"], "training_id": ids["training_job_id"]} | ids
    in_path = [f'"path.{name}" = {{ dictionary = "{name}", probability = 0.5 }}' for name in ids]
    in_body = [f'"body.{name}" = {{ dictionary = "{name}", probability = 0.5 }}' for name in names]
    return "\n".join(
        [
            'headers = { "X-API-Key" = "${FUZZ_KEY}" }',
            'hooks = "tests.contract.fuzz_hooks"',
            "continue-on-failure = true",
            "request-timeout = 60",
            f"[phases.fuzzing.generation]\nmax-examples = {examples}",
            f"[phases.stateful.generation]\nmax-examples = {scenarios}",
            "[checks]",
            f"positive_data_acceptance.expected-statuses = {json.dumps(REFUSALS)}",
            "[parameters]",
            *in_path,
            *in_body,
            *(f'[dictionaries.{name}]\nvalues = ["{value}"]' for name, value in names.items()),
            # The hooks have some of them name nobody's things.
            '[[operations]]\ninclude-method = "DELETE"\nchecks.ensure_resource_availability.enabled = false',
        ]
    )


def fuzz(
    client: Client, ids: dict[str, str], document: Json, folder: Path, *options: str, examples: int, scenarios: int
) -> str:
    """What `schemathesis run` says of the platform by this document, its summary last; fails on any finding.

    Generates `examples` requests for each operation, and `scenarios` walks over the links between operations.
    """
    toml = configuration(ids, examples=examples, scenarios=scenarios)
    (folder / "schemathesis.toml").write_text(toml, encoding="utf-8")
    (folder / "document.json").write_text(json.dumps(document), encoding="utf-8")
    environment = os.environ | {
        "FUZZ_KEY": client.http.headers["X-API-Key"],
        # The key that calls are made with may be revoked once there is another admin key.
        "FUZZ_KEPT": json.dumps([*ids.values(), *(row["id"] for row in client.get("/v1/keys"))]),
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [
        program,
        "--config-file",
        "schemathesis.toml",
        "run",
        "document.json",
        "--url",
        str(client.http.base_url),
    ]
    done = subprocess.run(
        [*command, "--no-color", *options], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def summary(said: str) -> str:
    """A run's output from its summary on."""
    found = re.search(r"=+ SUMMARY =+", said)
    return said[found.start() :] if found else "\n".join(said.splitlines()[-20:])
