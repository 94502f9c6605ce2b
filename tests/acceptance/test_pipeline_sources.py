"""Pipelines on the whole platform that take their rows from a bucket and from a database; one trains by GRPO."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
import sqlalchemy

from emissary.client import Client
from emissary.store.database import companion_database
from emissary.store.embedded_server import embedded_server
from tests.acceptance.conftest import KEYS, S3Server
from tests.acceptance.own_platform import own_platform
from tests.acceptance.small_jobs import GRPO, SFT
from tests.conftest import BASE_MODEL
from tests.jobs import ROWS, ended, jsonl, until, upload
from tests.own_home import own_home
from tests.pipelines import run

pytestmark = pytest.mark.acceptance

QUERY = "SELECT question AS prompt, answer AS completion FROM tickets WHERE answer IS NOT NULL ORDER BY id"


@dataclass
class Sources:
    """A platform that may read a bucket and a database, and both to write to."""

    client: Client
    project: str
    lake: str
    s3: Any
    warehouse: sqlalchemy.Engine

    def put(self, name: str, rows: list[dict[str, Any]]) -> None:
        """A new object below the prefix."""
        bucket, _, prefix = self.lake.removeprefix("s3://").partition("/")
        self.s3.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=jsonl(rows))

    def pipeline(self, **body: Any) -> str:
        """The path of a new pipeline."""
        path = f"{self.project}/pipelines"
        return f"{path}/{self.client.post(path, body)['id']}"

    def rows(self, run: dict[str, Any]) -> list[Any]:
        """What the run trained on."""
        link = self.client.get(f"{self.project}/datasets/{run['train_dataset_id']}")["dataset_download_url"]
        return [json.loads(line) for line in self.client.http.get(link).text.splitlines()]


@pytest.fixture(scope="module")
def sources(s3_server: S3Server, base_model_dir: Any) -> Iterator[Sources]:
    endpoint, lake = s3_server.variables["AWS_ENDPOINT_URL"], f"s3://{s3_server.bucket}/tickets"
    s3 = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    with own_home() as home, embedded_server(home / "postgres") as server:
        address = companion_database(server.get_uri(), "warehouse")
        warehouse = sqlalchemy.create_engine(sqlalchemy.make_url(address).set(drivername="postgresql+psycopg"))
        with warehouse.begin() as database:
            database.exec_driver_sql(
                "CREATE TABLE tickets (id int GENERATED ALWAYS AS IDENTITY, question text, answer text)"
            )
        file = home / "sources.json"
        bucket = {
            "organizations": ["default"], "s3": lake, "endpoint_url": endpoint, "region": "us-east-1",
            "access_key_id": "reader", "secret_access_key": "reader-secret",
        }  # fmt: skip
        file.write_text(json.dumps({"lake": bucket, "warehouse": {"organizations": ["default"], "sql": address}}))
        file.chmod(0o600)
        with own_platform(base_model_dir.parent, EMISSARY_SOURCES=str(file)) as platform:
            client = platform.client()
            project = f"/v1/projects/{client.post('/v1/projects', {'name': 'sources'})['id']}"
            yield Sources(client, project, lake, s3, warehouse)
        warehouse.dispose()


def _text(row: dict[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def fill(sources: Sources, *words: str) -> None:
    """Tickets that ask to say each of the words."""
    with sources.warehouse.begin() as database:
        for word in words:
            insert = sqlalchemy.text("INSERT INTO tickets (question, answer) VALUES (:question, :answer)")
            database.execute(insert, {"question": f"Say {word}.", "answer": word})


def test_new_objects_of_a_bucket_are_trained_on_and_without_any_nothing_is_trained(sources: Sources) -> None:
    path = sources.pipeline(
        name="by-bucket",
        gather={"source": "s3", "uri": sources.lake},
        train_test_split_ratio=25,
        train=SFT.body | {"parameters": SFT.body["parameters"] | {"num_train_epochs": 1}},
    )
    assert run(sources.client, path)["outcome"] == "Skipped"
    sources.put("monday.jsonl", ROWS[:4])
    sources.put("tuesday.jsonl", ROWS[4:])
    first = run(sources.client, path)
    assert first["status"] == "Success", first
    assert sorted(map(_text, sources.rows(first))) == sorted(map(_text, ROWS))
    again = run(sources.client, path)
    assert (again["outcome"], again["reason"], again["training_job_id"]) == ("Skipped", "No new data.", None)
    sources.put("wednesday.jsonl", ROWS[:5])
    assert sources.rows(run(sources.client, path)) == ROWS[:5]


def test_rows_of_a_query_are_trained_on_by_grpo_and_the_checkpoint_is_promoted(sources: Sources) -> None:
    client, project = sources.client, sources.project
    golden = upload(client, project.rpartition("/")[2], ROWS[:3], "golden")
    base = client.post(f"{project}/deployments", {"training_job_id": BASE_MODEL, "checkpoint": 0, "name": "live"})
    deployed = until(lambda: client.get(f"{project}/deployments/{base['id']}"), ended, seconds=240)
    assert deployed["status"] == "Deployed", deployed["error"]
    path = sources.pipeline(
        name="by-query",
        gather={"source": "sql", "connection": "warehouse", "query": QUERY},
        test_dataset_id=golden,
        train=GRPO.body | {"parameters": GRPO.body["parameters"] | {"num_train_epochs": 1}},
        gate={"minimum_improvement": -1},
        deployment_id=base["id"],
    )
    fill(sources, "violet", "orange", "purple", "golden")
    promoted = run(client, path)
    assert (promoted["status"], promoted["outcome"]) == ("Success", "Promoted"), promoted
    assert [row["prompt"] for row in sources.rows(promoted)] == [
        f"Say {word}." for word in ("violet", "orange", "purple", "golden")
    ]
    job = client.get(f"{project}/training-jobs/{promoted['training_job_id']}")
    assert (job["training_technique"], job["status"]) == ("GRPO", "Success")
    assert set(promoted["decision"]["challenger"]["scores"]) == {"test_similarity_shared"}
    assert client.get(f"{project}/deployments/{base['id']}")["training_id"] == promoted["training_job_id"]
    messages = [{"role": "user", "content": "Say violet."}]
    answer = client.post("/v1/chat/completions", {"model": "live", "messages": messages, "max_tokens": 4})
    assert answer["choices"][0]["message"]["content"]

    assert run(client, path)["outcome"] == "Skipped"
    fill(sources, "crimson")
    assert len(sources.rows(run(client, path))) == 5
