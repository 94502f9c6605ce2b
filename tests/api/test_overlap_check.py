"""A pipeline that names datasets is refused where test rows are among them, as its runs would be."""

import json
from typing import Any

import pytest

from emissary.api import overlap_check
from tests.api.backends import Backends
from tests.api.refusals import MODEL, envelope

COLOURS = [{"prompt": f"Say colour {number}.", "completion": str(number)} for number in range(30)]
TRAIN = {"base_model": MODEL, "test_functions": ["exact_match_shared"]}


class Project:
    """A project with a test dataset of thirty rows."""

    def __init__(self, backends: Backends) -> None:
        self.backends = backends
        self.path = f"/v1/projects/{backends.request('POST', '/v1/projects', json={'name': 'overlap'}).json()['id']}"
        self.test = self.upload(COLOURS)

    def upload(self, rows: list[dict[str, Any]], on_invalid: str = "refuse") -> str:
        file = {"file": ("rows.jsonl", "\n".join(map(json.dumps, rows)).encode())}
        answer = self.backends.request("POST", f"{self.path}/datasets", files=file, data={"on_invalid": on_invalid})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def body(self, *datasets: str) -> dict[str, Any]:
        gather = {"datasets": list(datasets) or "all"}
        return {"name": "nightly", "train": TRAIN, "test_dataset_id": self.test, "gather": gather}


@pytest.fixture
def project(backends: Backends) -> Project:
    return Project(backends)


def test_pipeline_that_names_datasets_with_test_rows_is_neither_made_nor_changed_to_it(project: Project) -> None:
    chat = [{"role": "user", "content": " Say  colour 3."}, {"role": "assistant", "content": "red"}]
    apart = project.upload([{"prompt": "Say red.", "completion": "red"}])
    mixed = project.upload([{"colour": "red"}, {"messages": chat}, COLOURS[7], COLOURS[7]], "skip")
    path, ask = f"{project.path}/pipelines", project.backends.request
    sentence = (
        f"test_dataset_id: 2 of the 30 rows of {project.test} have an input that is among the gathered rows too, so "
        "the test would tell nothing: row 4, 8. Remove them from either side."
    )
    answer = ask("POST", path, json=project.body(apart, mixed))
    envelope(answer, 400, "invalid_input")
    assert answer.json()["error"] == sentence
    made = ask("POST", path, json=project.body(apart))
    assert made.status_code == 201, made.text
    changed = ask("PUT", f"{path}/{made.json()['id']}", json=project.body(mixed))
    envelope(changed, 400, "invalid_input")
    assert changed.json()["error"] == sentence
    assert ask("GET", f"{path}/{made.json()['id']}").json()["gather"]["datasets"] == [apart]


def test_many_test_rows_are_listed_up_to_twenty(project: Project) -> None:
    copy = project.upload(COLOURS)
    answer = project.backends.request("POST", f"{project.path}/pipelines", json=project.body(copy))
    assert "30 of the 30 rows" in answer.json()["error"]
    assert answer.json()["error"].endswith("19, 20, …. Remove them from either side.")


@pytest.mark.parametrize("named", [True, False], ids=["large", "not named"])
def test_what_is_large_or_may_be_another_by_then_is_left_to_the_runs(
    project: Project, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    copy = project.upload(COLOURS)
    if named:
        monkeypatch.setattr(overlap_check, "MOST_BYTES", 1000)
    body = project.body(*[copy] * named)
    answer = project.backends.request("POST", f"{project.path}/pipelines", json=body)
    assert answer.status_code == 201, answer.text


def test_names_that_are_wrong_are_told_as_without_test_rows(project: Project) -> None:
    for body, field in (
        (project.body("ds-nobody"), "gather.datasets: there is no dataset"),
        (project.body(project.test), "gather.datasets: "),
        (project.body(project.upload(COLOURS)) | {"test_dataset_id": "ds-nobody"}, "test_dataset_id: "),
    ):
        answer = project.backends.request("POST", f"{project.path}/pipelines", json=body)
        envelope(answer, 400, "invalid_input")
        assert answer.json()["error"].startswith(field), answer.text
