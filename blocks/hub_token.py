"""A token of the Hugging Face hub as a block of Prefect, so that it is kept in one place for API and all workers."""

from prefect.blocks.core import Block
from pydantic import Field, SecretStr


class HubToken(Block):
    """The token with which this platform reads private and gated models and datasets of the Hugging Face hub."""

    _block_type_name = "Hub Token"
    _block_type_slug = "hub-token"
    _description = "Opens private and gated models and datasets of the Hugging Face hub; used when it is named default."

    token: SecretStr = Field(
        default=...,
        title="Token",
        description="An access token that may read, from the hub's settings. Every organization can train on what it "
        "opens.",
        examples=["hf_…"],
    )
