"""Keys over the API: made by admins for their organization, shown once, revoked."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from emissary.client import ApiError, Client
from emissary.store import users
from emissary.store.database import dispose, transaction
from emissary.up import Platform
from tests.api.refusals import bad_name, envelope


def admin_of(platform: Platform, organization: str) -> Client:
    """A client with the only key of a new organization."""

    async def make() -> str:
        async with transaction() as session:
            _, key = await users.create_key(session, "boss", "first", role="admin", organization=organization)
        await dispose()
        return key

    return Client(platform.api_url, asyncio.run(make()))


def test_key_works_from_its_creation_to_its_revocation(client: Client, platform: Platform) -> None:
    made = client.post("/v1/keys", {"name": "laptop", "user": "ada", "role": "read-only"})
    assert (made["name"], made["user"], made["role"], made["last_used_at"]) == ("laptop", "ada", "read-only", None)
    hers = Client(platform.api_url, made["key"])
    assert hers.get("/v1/projects") is not None
    envelope(hers.http.post("/v1/projects", json={}), 403, "forbidden")
    (listed,) = [row for row in client.get("/v1/keys") if row["id"] == made["id"]]
    assert "key" not in listed
    assert listed["last_used_at"] >= made["created_at"]
    for _ in range(2):
        client.delete(f"/v1/keys/{made['id']}")
    envelope(hers.http.get("/v1/projects"), 401, "unauthorized")
    (listed,) = [row for row in client.get("/v1/keys") if row["id"] == made["id"]]
    assert listed["revoked_at"] >= made["created_at"]


def test_keys_are_for_admins(client: Client, platform: Platform) -> None:
    member = Client(platform.api_url, client.post("/v1/keys", {"name": "member"})["key"])
    envelope(member.http.get("/v1/keys"), 403, "forbidden")
    envelope(member.http.post("/v1/keys", json={"name": "more"}), 403, "forbidden")


def test_organization_knows_only_its_own_keys(client: Client, platform: Platform) -> None:
    theirs = admin_of(platform, "strangers")
    (key,) = theirs.get("/v1/keys")
    assert key["id"] not in [row["id"] for row in client.get("/v1/keys")]
    envelope(client.http.delete(f"/v1/keys/{key['id']}"), 404, "object_not_found")
    # The same name is another user in another organization.
    assert theirs.post("/v1/keys", {"name": "hers", "user": "admin"})["user"] == "admin"
    assert theirs.get("/v1/projects") == []


def test_last_admin_key_cannot_be_revoked(platform: Platform) -> None:
    boss = admin_of(platform, "careful")
    (first,) = boss.get("/v1/keys")
    boss.post("/v1/keys", {"name": "member"})
    with pytest.raises(ApiError, match="last admin key") as raised:
        boss.delete(f"/v1/keys/{first['id']}")
    assert raised.value.status == 400


def test_of_two_last_admin_keys_one_stays(platform: Platform) -> None:
    boss = admin_of(platform, "hasty")
    boss.post("/v1/keys", {"name": "second", "role": "admin"})
    ids = [key["id"] for key in boss.get("/v1/keys")]
    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(lambda key_id: boss.http.delete(f"/v1/keys/{key_id}").status_code, ids))
    # The second request may come after its own key is revoked.
    assert sorted(statuses) in ([204, 400], [204, 401])


def test_repeated_request_makes_one_key_and_shows_it_once(client: Client) -> None:
    headers = {"Idempotency-Key": "a-key-once"}
    first, again = (client.call("POST", "/v1/keys", json={"name": "once"}, headers=headers) for _ in range(2))
    assert first["key"].startswith("ek-")
    assert again == first | {"key": None}


@bad_name
def test_bad_name_of_a_key_is_refused(client: Client, name: str) -> None:
    envelope(client.http.post("/v1/keys", json={"name": name}), 400, "invalid_input")
    envelope(client.http.post("/v1/keys", json={"name": "x", "role": name}), 400, "invalid_input")


def test_keys_come_in_pages(client: Client) -> None:
    for number in range(3):
        client.post("/v1/keys", {"name": f"page-{number}"})
    page = client.http.get("/v1/keys?limit=2")
    assert len(page.json()) == 2
    rest = client.http.get(page.links["next"]["url"])
    assert [*page.json(), *rest.json()][:3] == client.get("/v1/keys")[:3]
