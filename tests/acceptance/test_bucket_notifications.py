"""An object store that notifies the platform of new objects, by the configuration that README.md gives."""

import json
import re
from pathlib import Path

import boto3
import pytest

from emissary.settings import PROJECT_ROOT
from tests.acceptance.conftest import s3_started
from tests.acceptance.own_platform import own_platform
from tests.acceptance.small_jobs import SFT
from tests.jobs import ROWS, ended, jsonl, until, upload
from tests.own_home import own_home
from tests.pipelines import run

pytestmark = pytest.mark.acceptance


def template(bucket: str) -> str:
    """Of the objects' keys, as README.md gives it for this store."""
    (found,) = re.findall(
        r"^- SeaweedFS: .*?`(\{\{ .*? \}\})`", (PROJECT_ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert "BUCKET" in found
    return str(found).replace("BUCKET", bucket)


def configuration(url: str, secret: str, bucket: str) -> str:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"^```toml\n(\[notification\.webhook\]\n.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    for example, value in (
        ("https://emissary.example.com/v1/webhooks/wh-…", url),
        ("SECRET", secret),
        ("BUCKET", bucket),
    ):
        assert example in found
        found = found.replace(example, value)
    return str(found)


def test_each_object_that_is_put_is_trained_on_alone(base_model_dir: Path) -> None:
    with own_home() as home:
        file = home / "sources.json"
        file.write_text("{}")
        file.chmod(0o600)
        with own_platform(base_model_dir.parent, EMISSARY_SOURCES=str(file)) as platform:
            client = platform.client()
            project = f"/v1/projects/{client.post('/v1/projects', {'name': 'bucket-notifications'})['id']}"
            upload(client, project.rpartition("/")[2], ROWS)
            train = SFT.body | {"parameters": SFT.body["parameters"] | {"num_train_epochs": 1}}
            body = {"name": "notified", "train": train, "train_test_split_ratio": 25}
            pipeline = f"{project}/pipelines/{client.post(f'{project}/pipelines', body)['id']}"
            parameters = {"objects": [template("lake")]}
            hook = client.post(f"{pipeline}/webhooks", {"name": "lake", "scheme": "token", "parameters": parameters})
            with s3_started(configuration(hook["url"], hook["secret"], "lake")) as server:
                variables = server.variables
                s3 = boto3.client(
                    "s3",
                    endpoint_url=variables["AWS_ENDPOINT_URL"],
                    region_name=variables["AWS_DEFAULT_REGION"],
                    aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
                    aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
                )
                s3.create_bucket(Bucket="lake")
                connection = {
                    "organizations": ["default"],
                    "s3": "s3://lake",
                    "endpoint_url": variables["AWS_ENDPOINT_URL"],
                    "region": variables["AWS_DEFAULT_REGION"],
                    "access_key_id": "reader",
                    "secret_access_key": "reader-secret",
                }
                file.write_text(json.dumps({"lake": connection}))
                # The webhook had to be there before the server, whose bucket the pipeline needs.
                source = {"source": "s3", "uri": "s3://lake/new rows/"}
                client.call("PUT", pipeline, json=body | {"gather": source})
                assert client.get(f"{pipeline}/webhooks/{hook['id']}/deliveries") == []
                s3.put_object(Bucket="lake", Key="new rows/a.jsonl", Body=jsonl(ROWS[:4]))
                s3.put_object(Bucket="lake", Key="new rows/é+b.jsonl", Body=jsonl(ROWS[4:]))
                found = until(
                    lambda: client.get(f"{pipeline}/runs"), lambda runs: len(runs) == 2 and all(map(ended, runs)), 300
                )
                assert run(client, pipeline)["reason"] == "No new data."
            trained = []
            for each in found:
                assert (each["trigger"], each["status"]) == ("webhook", "Success"), each
                detail = client.get(f"{pipeline}/runs/{each['id']}")
                assert detail["trigger_id"] == hook["id"]
                dataset = client.get(f"{project}/datasets/{detail['train_dataset_id']}")
                trained.append(client.http.get(dataset["dataset_download_url"]).content)
            assert sorted(trained) == sorted([jsonl(ROWS[:4]), jsonl(ROWS[4:])])
