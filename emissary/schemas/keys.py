"""API keys. The key itself is in the answer to its creation, and nowhere else."""

from pydantic import BaseModel, Field

from emissary.schemas.fields import Name, UnixTime
from emissary.store.users import Role


class KeyCreate(BaseModel):
    """POST /v1/keys."""

    name: Name = Field(description="What the key is for.", examples=["laptop"])
    role: Role = Field(
        default="member", description="What it allows: everything (admin), all but keys (member), or reading."
    )
    user: Name | None = Field(
        default=None, description="Whose key it is: a user of the organization, made when unknown; default the caller."
    )


class KeySummary(BaseModel):
    """A key, without the key itself."""

    id: str
    name: str
    user: str
    role: Role
    created_at: UnixTime
    last_used_at: UnixTime | None = Field(description="When it was last used, to the minute.")
    revoked_at: UnixTime | None


class KeyCreated(KeySummary):
    """A new key."""

    key: str | None = Field(description="The key, shown this once; null where the request is a repeated one.")
