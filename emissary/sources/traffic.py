"""Captured traffic of a deployment of the project. It is in the catalogue, so unlike the others it is fetched there."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from emissary.schemas.sources import TrafficSource
from emissary.sources.fetched import Fetched
from emissary.store import deployments, traffic
from emissary.store.tables import Json


async def fetch(
    session: AsyncSession, source: TrafficSource, until: int, known: Sequence[Json], folder: Path
) -> Fetched | None:
    """What was captured or reviewed since the newest of `known`, up to the revision `until`, each row once, written to
    `folder`; None where that is nothing.
    """
    asked = {"deployment_id": source.deployment_id, "only": source.only}
    before = [origin["until"] for origin in known if origin.items() >= asked.items()]
    deployment = await deployments.get(session, source.deployment_id)
    path, seen = folder / "fetched", set[bytes]()
    with path.open("wb") as file:
        async for row in traffic.examples(session, deployment, source.only, max(before, default=0), until):
            line = json.dumps(row, ensure_ascii=False, sort_keys=True).encode()
            digest = blake2b(line, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                file.write(line + b"\n")
    return Fetched(path, "traffic.jsonl", asked | {"until": until}) if seen else None
