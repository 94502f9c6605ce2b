"""Testing functions, events and logs by the command."""

from pathlib import Path

import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.api.refusals import MODEL
from tests.command_line import answer, emissary, fine
from tests.jobs import ROWS, upload

SOURCE = """\
def length_ratio(input_text: str, expected_output: str, predicted_output: str) -> float:
    return len(predicted_output) / len(expected_output)
"""


def test_function_is_added_tried_replaced_and_deleted(platform: Platform, tmp_path: Path) -> None:
    file, rows = tmp_path / "length_ratio.py", tmp_path / "rows.jsonl"
    file.write_text(SOURCE)
    rows.write_text('{"input_text": "Say red.", "expected_output": "red", "predicted_output": "re"}\n')
    assert answer(platform, "testing-functions", "add", str(file))["name"] == "length_ratio"
    assert fine(platform, "testing-functions", "show", "length_ratio").strip() == SOURCE.strip()
    assert [row["score"] for row in answer(platform, "testing-functions", "try", "length_ratio", str(rows))] == [
        pytest.approx(2 / 3)
    ]
    file.write_text(SOURCE.replace("/ len(expected_output)", "* 1.0"))
    fine(platform, "testing-functions", "update", str(file))
    assert "2.0" in fine(platform, "testing-functions", "try", "length_ratio", str(rows))
    rows.write_text('{"input_text": "Say it.", "expected_output": "", "predicted_output": "re"}\n')
    file.write_text(SOURCE.replace("return ", "return len(input_text) if expected_output else 1 / "))
    fine(platform, "testing-functions", "update", str(file))
    failed = emissary(platform, "testing-functions", "try", "length_ratio", str(rows))
    assert "ZeroDivisionError" in failed.stdout
    assert "in length_ratio" in failed.stderr
    fine(platform, "testing-functions", "delete", "length_ratio")
    assert emissary(platform, "testing-functions", "show", "length_ratio").returncode == 3
    assert emissary(platform, "testing-functions", "delete", "exact_match_shared").returncode == 1


def test_events_and_logs_of_a_job_are_listed(platform: Platform, client: Client) -> None:
    project = client.post("/v1/projects", {"name": "cli-events"})["id"]
    body = {"base_model": MODEL, "train_dataset_id": upload(client, project, ROWS), "name": "eventful"}
    path = f"/v1/projects/{project}/training-jobs"
    client.post(f"{path}/{client.post(path, body)['id']}/cancel")
    shown = fine(platform, "jobs", "events", "eventful", "--project", "cli-events")
    assert "queued" in shown
    assert "cancelled" in shown
    assert isinstance(answer(platform, "jobs", "logs", "eventful", "--project", "cli-events"), list)
