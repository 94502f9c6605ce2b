"""Notification blocks of Prefect tell people in plain words: those that the operator lets an organization use.

A local server stands for Slack, Microsoft and SMTP, which do not answer here; what the blocks send is real.
"""

import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from prefect.blocks.core import Block
from prefect.blocks.notifications import CustomWebhookNotificationBlock, MicrosoftTeamsWebhook, SlackWebhook
from prefect.blocks.system import Secret
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr, ValidationError

from blocks.mail import Mail
from emissary.settings import settings
from emissary.store.pipeline_tables import PipelineRun
from tests.api.backends import Backends
from tests.api.refusals import envelope
from tests.api.subscribing import Subscribing

SLACK = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
TEAMS = (
    "https://prod-1.westus.logic.azure.com:443/workflows/643e69f83c8944438d68119179a10a64/triggers/manual/paths/invoke"
    "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=KODuebWbDGYFr0z0eu-6Rj8aUKz7108W3wrNJZxFE5A"
)
DECISION = {
    "challenger": {"scores": {"exact_match_shared": 0.1}},
    "champion": {"scores": {"exact_match_shared": 0.72}},
}
REASON = "exact_match_shared is 0.1, and must be 0.7."


class Blocks:
    """Saves blocks in Prefect, and lets organizations use them."""

    def __init__(self, backends: Backends, file: Path) -> None:
        self._backends, self._file = backends, file
        self._leaves: dict[str, Any] = {}

    def save(self, block: Block, name: str, organizations: Any = "all") -> str:
        """`type/name` of a block."""

        async def work() -> None:
            with temporary_settings({PREFECT_API_URL: self._backends.prefect_url}):
                await block.save(name, overwrite=True)  # type: ignore[misc]

        self._backends.run(work())
        full = f"{block.get_block_type_slug()}/{name}"
        self.allow(full, organizations)
        return full

    def allow(self, full: str, organizations: Any) -> None:
        self._leaves[full] = {"organizations": organizations}
        self._file.write_text(json.dumps(self._leaves))


@pytest.fixture
def blocks(backends: Backends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blocks:
    file = tmp_path / "notifications.json"
    monkeypatch.setattr(settings(), "notifications", file)
    file.write_text("{}")
    return Blocks(backends, file)


@pytest.fixture
def here(subscribing: Subscribing, monkeypatch: pytest.MonkeyPatch) -> Subscribing:
    """What would go to Slack and Microsoft by Apprise goes to the server."""
    real = requests.Session.request

    def request(session: requests.Session, method: str, url: str, **more: Any) -> requests.Response:
        assert url.startswith("https://")
        return real(session, method, f"{subscribing.web.url}{urlsplit(url).path}", **more)

    monkeypatch.setattr(requests.Session, "request", request)
    return subscribing


def not_promoted(subscribing: Subscribing) -> None:
    subscribing.add_rows()
    subscribing.change(PipelineRun, decision=DECISION, outcome="NotPromoted", reason=REASON)


def told_people(text: str, subscribing: Subscribing) -> None:
    """What happened, why, by which numbers, and where to look is all there."""
    for words in (
        "Pipeline nightly has not promoted the new checkpoint",
        REASON,
        "exact_match_shared: 0.1, deployed now 0.72",
        f"{settings().api_url}{subscribing.project}/pipelines/pl-{subscribing.id}/runs/pr-{subscribing.id}",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("block", "path"),
    [
        (SlackWebhook(url=SecretStr(SLACK)), "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"),
        (
            MicrosoftTeamsWebhook(url=SecretStr(TEAMS), include_image=False),
            "/workflows/643e69f83c8944438d68119179a10a64/triggers/manual/paths/invoke",
        ),
    ],
    ids=["slack", "teams"],
)
def test_run_that_is_not_promoted_is_told_with_the_reason(
    here: Subscribing, blocks: Blocks, block: Block, path: str
) -> None:
    name = blocks.save(block, "ops")
    row = here.subscribe("pipeline_run.not_promoted", block=name)
    assert (row["url"], row["block"], row["secret"]) == (None, name, None)
    not_promoted(here)
    here.web.answers[path] = (200, {}, b"ok")
    here.send()
    delivery = here.delivery(row)
    assert (delivery["status"], delivery["answer"]) == ("Delivered", f"The block {name} sent it."), delivery
    ((asked, _),) = here.web.asked
    assert asked.partition("?")[0] == path
    texts = json.dumps(json.loads(here.web.posted[0]), ensure_ascii=False).replace("\\n", "\n")
    told_people(texts, here)


def test_block_that_cannot_send_is_tried_again_and_its_words_stay_in_the_log(
    here: Subscribing, blocks: Blocks, caplog: pytest.LogCaptureFixture
) -> None:
    name = blocks.save(CustomWebhookNotificationBlock(name="c", url=f"{here.web.url}/hidden", json_data={}), "custom")
    row = here.subscribe("training_job.cancelled", block=name)
    here.ask("POST", row, "/test")
    here.send()
    failed = here.delivery(row)
    assert (failed["status"], failed["attempts"]) == ("Pending", 1)
    assert failed["answer"] == f"The block {name} could not send it; the API's log says why."
    assert "/hidden" in caplog.text
    refusal = here.backends.request("POST", f"{here.path}/{row['id']}/rotate")
    envelope(refusal, 400, "invalid_input")


def test_block_is_for_its_organizations_alone_and_only_as_long_as_the_operator_says(
    here: Subscribing, blocks: Blocks
) -> None:
    name = blocks.save(CustomWebhookNotificationBlock(name="c", url=f"{here.web.url}/hook", json_data={}), "theirs")
    row = here.subscribe(block=name)
    sentences = []
    blocks.allow(name, ["others"])
    for wanted in (name, f"{name}x"):
        body = {"name": "more", "block": wanted, "events": ["training_job.failed"]}
        refusal = here.backends.request("POST", here.path, json=body)
        envelope(refusal, 400, "invalid_input")
        sentences.append(refusal.json()["error"].replace(wanted, "…"))
    assert len(set(sentences)) == 1  # nobody learns what others have
    here.ask("POST", row, "/test")
    here.send()
    assert here.web.asked == []
    assert here.delivery(row)["answer"] == sentences[0].replace("…", name)


@pytest.mark.parametrize("kind", ["missing", "of no known type", "no notification"])
def test_block_that_could_not_notify_is_refused(here: Subscribing, blocks: Blocks, kind: str) -> None:
    if kind == "no notification":
        name = blocks.save(Secret(value=SecretStr("hidden")), "plain")
    else:
        name = "slack-webhook/nobody" if kind == "missing" else "pigeon-post/ops"
        blocks.allow(name, "all")
    body = {"name": "no", "block": name, "events": ["training_job.failed"]}
    refusal = here.backends.request("POST", here.path, json=body)
    envelope(refusal, 400, "invalid_input")
    assert refusal.json()["error"].startswith("block: ")
    assert "hidden" not in refusal.text


class Mailbox(socketserver.StreamRequestHandler):
    """As much of an SMTP server as takes one message; a stand-in for one that would send it on."""

    received: list[str]

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            command = line[:4].upper()
            if command == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                message = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    message += part
                self.received.append(message.decode())
            self.wfile.write(b"221 bye\r\n" if command == b"QUIT" else b"250 fine\r\n")


@pytest.fixture
def mailbox() -> Iterator[tuple[int, list[str]]]:
    """Its port, and the messages that arrive."""
    handler = type("Handler", (Mailbox,), {"received": []})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1], handler.received  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


def test_mail_is_sent_over_smtp(here: Subscribing, blocks: Blocks, mailbox: tuple[int, list[str]]) -> None:
    port, received = mailbox
    url = f"mailto://127.0.0.1:{port}?mode=insecure&format=text&from=robot@example.com&to=ops@example.com"
    row = here.subscribe("pipeline_run.not_promoted", block=blocks.save(Mail(url=SecretStr(url)), "ops"))
    not_promoted(here)
    here.send()
    assert here.delivery(row)["status"] == "Delivered"
    (message,) = received
    assert "To: ops@example.com" in message
    told_people(message.replace("=\r\n", "").replace("\r\n ", " "), here)


def test_address_that_is_no_mail_is_no_block_for_mail() -> None:
    with pytest.raises(ValidationError, match="must begin with mailto://"):
        Mail(url=SecretStr("json://127.0.0.1"))
