"""An object store that notifies the platform of a new object, by the configuration that README.md gives."""

import re

import boto3
import pytest

from emissary.client import Client
from emissary.settings import PROJECT_ROOT
from tests.acceptance.conftest import s3_started
from tests.conftest import BASE_MODEL
from tests.jobs import ROWS, until, upload

pytestmark = pytest.mark.acceptance


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


def test_object_that_is_put_starts_the_pipeline(client: Client) -> None:
    project = client.post("/v1/projects", {"name": "bucket-notifications"})["id"]
    upload(client, project, ROWS)
    train = {"base_model": BASE_MODEL, "test_functions": ["exact_match_shared"]}
    body = {"name": "notified", "train": train, "train_test_split_ratio": 25}
    pipeline = f"/v1/projects/{project}/pipelines/{client.post(f'/v1/projects/{project}/pipelines', body)['id']}"
    hook = client.post(f"{pipeline}/webhooks", {"name": "lake", "scheme": "token"})
    path = f"{pipeline}/webhooks/{hook['id']}"
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
        assert client.get(f"{path}/deliveries") == []
        s3.put_object(Bucket="lake", Key="new rows/a.jsonl", Body=b"{}")
        delivery = until(lambda: client.get(f"{path}/deliveries"), bool, seconds=60)[0]
    run = client.get(f"{pipeline}/runs/{delivery['pipeline_run_id']}")
    client.post(f"{pipeline}/runs/{run['id']}/cancel")
    assert (run["trigger"], run["trigger_id"]) == ("webhook", hook["id"])
