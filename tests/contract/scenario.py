"""One walk through all operations of the contract on the running platform, every answer recorded."""

import re
from collections import defaultdict
from typing import Any

import httpx

from emissary.up import Platform
from tests.contract.contract import contract, operations, problems, response_schema
from tests.jobs import ROWS, TINY, ended, jsonl, until

MODEL = "SmolLM2-135M-Instruct"
EMBEDDER = "all-MiniLM-L6-v2"
NOBODY = "unknown-0000000000000000000000"
OPERATIONS = operations(contract())
# A body that is right in its form, for a model that is not there.
_OF_NOBODY: dict[str, dict[str, Any]] = {
    "getCompletionsFromDeployment": {"model": NOBODY, "prompt": "a"},
    "getChatCompletions": {"model": NOBODY, "messages": [{"role": "user", "content": "a"}]},
    "getEmbeddingsFromDeployment": {"model": NOBODY, "input": "a", "target": "b"},
    "getClassificationFromDeployment": {"model": NOBODY, "input": "a"},
}
Seen = dict[str, dict[int, list[str]]]
"""Operation → status code → what its answers had wrong."""


class Recorder:
    """Calls operations by their id, and keeps each status code with what the answer has wrong."""

    def __init__(self, platform: Platform) -> None:
        self.seen: Seen = defaultdict(dict)
        self._http = httpx.Client(base_url=platform.api_url, timeout=300, trust_env=False)
        self._key = {"X-API-Key": platform.api_key}

    def call(self, operation_id: str, *, key: bool = True, query: str = "", **arguments: Any) -> Any:
        """The answer's JSON, `{}` where it has none; arguments that are names of the path go there."""
        operation = OPERATIONS[operation_id]
        names = re.findall(r"{(\w+)}", operation.path)
        path = operation.path.format(**{name: arguments.pop(name, NOBODY) for name in names})
        headers = self._key if key else {}
        response = self._http.request(operation.method, path + query, headers=headers, **arguments)
        self._record(operation_id, response)
        return response.json() if response.content else {}

    def made(self, operation_id: str, **arguments: Any) -> str:
        """The id of what the call created; nobody's where it created nothing."""
        return str(self.call(operation_id, **arguments).get("id", NOBODY))

    def follow(self, operation_id: str, *wanted: str, **names: str) -> dict[str, Any]:
        """Retrieve until the status is one of `wanted`; nothing to follow where nothing was created."""
        if NOBODY in names.values():
            return {}
        found = until(
            lambda: self.call(operation_id, **names),
            lambda found: found["status"] in wanted if wanted else ended(found),
            seconds=240,
        )
        return dict(found)

    def _record(self, operation_id: str, response: httpx.Response) -> None:
        status, operation = response.status_code, OPERATIONS[operation_id]
        wrong = self.seen[operation_id].setdefault(status, [])
        if status == 204 and response.content:
            wrong.append("204 with a body")
        if status not in operation.codes:
            return
        schema = response_schema(contract(), operation, status)
        if schema is not None:
            assert response.headers["content-type"] == "application/json"
            wrong += [f"{status} {problem}" for problem in problems(contract(), schema, response.json())]


def faults(operation_id: str, seen: Seen) -> list[str]:
    """What an operation of the contract falls short in: codes that nothing provoked, answers that do not fit."""
    answers = seen[operation_id]
    missing = OPERATIONS[operation_id].codes - set(answers)
    wrong = [f"{code} was never answered" for code in sorted(missing)]
    wrong += [f"{code} was answered" for code in answers if code >= 500 or code == 405]
    return wrong + [problem for found in answers.values() for problem in found]


def refusals(recorder: Recorder) -> None:
    """Provoke 401, 404 and 400 where no state is needed for it."""
    for operation in OPERATIONS.values():
        body = {"json": _OF_NOBODY[operation.id]} if operation.id in _OF_NOBODY else {}
        if 401 in operation.codes:
            recorder.call(operation.id, key=False)
        if 404 in operation.codes:
            recorder.call(operation.id, **body)
        if 400 in operation.codes:
            recorder.call(operation.id, query="?x=%00", **body)


def invalid_bodies(recorder: Recorder, project: str, engine: str) -> None:
    """Provoke 400 by a body that has a field of the wrong type, or none of the fields."""
    for operation in OPERATIONS.values():
        if 400 in operation.codes and "requestBody" in operation.definition:
            names = {"project_id": project, "engine_id": engine}
            inside = {name: value for name, value in names.items() if f"{{{name}}}" in operation.path}
            recorder.call(operation.id, **inside, json={"name": 5, "model": 5})


def train(recorder: Recorder, project: str) -> tuple[str, str]:
    """(job, dataset) of a tiny job that is trained to its end."""
    files = {"file": ("colours.jsonl", jsonl(ROWS))}
    dataset = recorder.made("createDataset", project_id=project, files=files)
    recorder.call("listDatasets", project_id=project)
    recorder.call("retrieveDatasetById", project_id=project, dataset_id=dataset)
    body = {
        "base_model": MODEL,
        "train_dataset_id": dataset,
        "train_test_split_ratio": 25,
        "test_functions": ["exact_match_shared"],
        "parameters": TINY | {"num_train_epochs": 1},
    }
    job = recorder.made("createTrainingJob", project_id=project, json=body)
    grpo = recorder.made(
        "createGRPOTrainingJob",
        project_id=project,
        json={
            "base_model": MODEL,
            "train_dataset_id": dataset,
            "test_functions": ["exact_match_shared"],
            "reward": {"exact_match_shared": 1.0},
        },
    )
    recorder.call("retrieveTrainingJobById", project_id=project, training_job_id=grpo)
    recorder.call("listTrainingJobs", project_id=project)
    recorder.call("cancelTrainingJobById", project_id=project, training_job_id=grpo)
    other = recorder.made("createTrainingJob", project_id=project, json=body)
    recorder.call("cancelTrainingJobById", project_id=project, training_job_id=other)
    recorder.call("deleteTrainingJobById", project_id=project, training_job_id=other)
    spare = recorder.made("createDataset", project_id=project, files=files)
    recorder.call("deleteDatasetById", project_id=project, dataset_id=spare)
    found = recorder.follow("retrieveTrainingJobById", project_id=project, training_job_id=job)
    if found.get("status") != "Success":
        recorder.seen["createTrainingJob"][201].append(f"the job ended as {found.get('status')}: {found.get('error')}")
    recorder.call("listCheckpoints", project_id=project, training_job_id=job)
    further = body | {"base_model_option": "fine-tuned", "base_model": job, "checkpoint": 1}
    child = recorder.made("createTrainingJob", project_id=project, json=further)
    recorder.call("retrieveTrainingJobById", project_id=project, training_job_id=child)
    recorder.call("cancelTrainingJobById", project_id=project, training_job_id=child)
    recorder.call("retrieveProjectById", project_id=project)
    return job, dataset


def serve(recorder: Recorder, project: str, job: str) -> str:
    """The engine that serves the job's checkpoint and its base model, after being ended and started twice."""
    engine = recorder.made("createEngine", json={"base_model": MODEL})
    recorder.call("reactivateEngineById", engine_id=engine)  # 400: it is starting
    recorder.follow("getEngine", "Active", engine_id=engine)
    body = {"project_id": project, "training_id": job, "checkpoint": 1, "name": "contract-tuned"}
    tuned = recorder.made("deployOnEngine", engine_id=engine, json=body)
    base = recorder.made(
        "createDeployment",
        project_id=project,
        json={"training_job_id": MODEL, "checkpoint": 0, "name": "contract-base"},
    )
    one = {"project_id": project, "deployment_id": tuned}
    recorder.follow("retrieveDeploymentById", **one)
    recorder.follow("retrieveDeploymentById", project_id=project, deployment_id=base)
    recorder.call("listDeployments", project_id=project)
    recorder.call("listEngines", query=f"?base_model={MODEL}&task_type=text-generation")
    recorder.call("reactivateDeploymentById", **one)  # 400: it is there
    chat = {"messages": [{"role": "user", "content": "Say red."}], "max_tokens": 3, "temperature": 0}
    recorder.call("getChatCompletions", json=chat | {"model": "contract-tuned"})
    recorder.call(
        "getCompletionsFromDeployment",
        json={"model": "contract-base", "prompt": "Red is", "max_completion_tokens": 3, "top_p": 0.9, "top_k": 5},
    )
    recorder.call("deactivateEngineById", engine_id=engine)
    recorder.follow("getEngine", "Inactive", engine_id=engine)
    recorder.call("deactivateEngineById", engine_id=engine)  # 400: it has ended
    recorder.call("reactivateEngineById", engine_id=engine)
    recorder.follow("getEngine", "Active", engine_id=engine)
    recorder.call("deactivateEngineById", engine_id=engine)
    recorder.follow("retrieveDeploymentById", "Deactivated", **one)
    recorder.call("reactivateDeploymentById", **one)
    recorder.follow("retrieveDeploymentById", "Deployed", **one)
    recorder.call("unDeployFromEngine", engine_id=engine, json={"deployment_name": "contract-tuned"})
    recorder.call("deleteDeploymentById", project_id=project, deployment_id=base)
    return engine


def embed(recorder: Recorder) -> None:
    """Embeddings of an engine of their own; nothing where there is none to be had."""
    engine = recorder.made("createEngine", json={"base_model": EMBEDDER, "task_type": "embedding"})
    recorder.follow("getEngine", "Active", "Inactive", engine_id=engine)
    body = {"model": EMBEDDER, "input": "Paris", "target": "Rome"}
    recorder.call("getEmbeddingsFromDeployment", json=body | {"cosine": True, "manhattan": True, "euclidean": True})
    recorder.call("deleteEngineById", engine_id=engine)


def classify(recorder: Recorder, project: str) -> None:
    """A classifier trained on two labels; nothing where training one is refused."""
    rows = [{"prompt": f"It is {word}", "completion": {"warm": word == "red", "cold": word != "red"}} for word in
            ("red", "blue") * 4]  # fmt: skip
    rows = [{**row, "completion": {label: int(held) for label, held in row["completion"].items()}} for row in rows]
    files = {"file": ("labels.jsonl", jsonl(rows))}
    dataset = recorder.made("createDataset", project_id=project, files=files)
    parameters = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "max_length": 64, "lora_r": 2}
    body = {"base_model": MODEL, "train_dataset_id": dataset, "task_type": "classification", "parameters": parameters}
    job = recorder.made("createTrainingJob", project_id=project, json=body)
    if recorder.follow("retrieveTrainingJobById", project_id=project, training_job_id=job).get("status") != "Success":
        return
    request = {"training_job_id": job, "checkpoint": 1, "name": "contract-labels"}
    deployment = recorder.made("createDeployment", project_id=project, json=request)
    recorder.follow("retrieveDeploymentById", project_id=project, deployment_id=deployment)
    for data_format in ("logits", "probs"):
        body = {"model": "contract-labels", "input": "It is red", "data_format": data_format}
        recorder.call("getClassificationFromDeployment", json=body)


def walk(platform: Platform) -> Seen:
    """Operation → status code → what its answers had wrong, of the whole walk."""
    recorder = Recorder(platform)
    refusals(recorder)
    recorder.call("listBaseModels")
    recorder.call("retrieveBaseModelByName", base_model_name=MODEL)
    recorder.call("listTestFunctions")
    project = recorder.made("createProject", json={"name": "contract"})
    recorder.call("listProjects")
    job, _ = train(recorder, project)
    engine = serve(recorder, project, job)
    invalid_bodies(recorder, project, engine)
    embed(recorder)
    classify(recorder, project)
    recorder.call("deleteEngineById", engine_id=engine)
    recorder.call("deleteProjectById", project_id=project)
    return recorder.seen
