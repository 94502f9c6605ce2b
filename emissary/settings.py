"""Every EMISSARY_* variable, described once."""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Settings of the platform, read from the environment (`EMISSARY_HOME`, `EMISSARY_PORT`, …)."""

    model_config = SettingsConfigDict(env_prefix="EMISSARY_", extra="ignore")

    home: Path = Field(
        default=Path("~/.emissary"),
        description="Folder of all state of the embedded default: database, artifacts, models, Prefect's own.",
    )
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port of the API.")
    prefect_port: int = Field(default=4200, ge=1, le=65535, description="Port of the embedded Prefect server.")
    api_key: SecretStr | None = Field(
        default=None,
        description="The first API key. Unset: made once and kept in $EMISSARY_HOME/api-key.",
    )
    database_url: str | None = Field(
        default=None,
        description="postgresql://… of a PostgreSQL server. Unset: an embedded one in EMISSARY_HOME.",
    )
    artifacts: str | None = Field(
        default=None,
        description="The artifact store: a folder, or s3://bucket/prefix (endpoint and credentials by the usual AWS "
        "variables). Unset: $EMISSARY_HOME/artifacts.",
    )
    models: Path | None = Field(
        default=None, description="Folder of base models already on this machine; models resolve from it first."
    )
    sandbox: Literal["bwrap", "none"] = Field(
        default="bwrap",
        description="Isolation of testing functions. `none` must be asked for by name and warns.",
    )
    vllm: Path | None = Field(
        default=None,
        description="A python that has vLLM, by which GRPO samples its completions. Unset: transformers does.",
    )
    signing_key: SecretStr | None = Field(
        default=None,
        description="Secret that signs download links; the same on every machine that runs the API. "
        "Unset: made once and kept in $EMISSARY_HOME/signing-key.",
    )
    public_url: str | None = Field(
        default=None, description="URL under which clients reach the API, for download links. Unset: its address."
    )
    max_upload_mb: int = Field(default=100, ge=1, description="Largest dataset file of a direct upload, in MiB.")
    max_large_upload_mb: int = Field(
        default=5120, ge=1, description="Largest dataset file of an upload in parts, in MiB."
    )
    link_seconds: int = Field(default=3600, ge=1, description="How long a download link works, in seconds.")
    testing_seconds: float = Field(
        default=60.0, gt=0, description="Time limit of one testing function over one checkpoint's rows, in seconds."
    )
    testing_row_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Time limit of one testing function on one row, in seconds; then that row fails.",
    )
    cold_start_hold: float = Field(
        default=30.0,
        ge=0,
        description="How long a request to a model whose engine has ended is held while the engine starts, in seconds; "
        "then it is answered 503 with Retry-After.",
    )
    sources: Path | None = Field(
        default=None,
        description="JSON file of named connections: to buckets and databases from which pipelines may fetch data, and "
        "to owners on the Hugging Face hub to whom models may be pushed.",
    )
    notifications: Path | None = Field(
        default=None,
        description="JSON file of the notification blocks of Prefect by which projects may be told of events.",
    )
    allow_private_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Hosts and networks (CIDR) that are not public and may be called all the same where a user names "
        "them, separated by commas.",
    )
    report_to: Annotated[tuple[Literal["mlflow", "wandb"], ...], NoDecode] = Field(
        default=(),
        description="Trackers that are told of every training job, `mlflow` or `wandb`, separated by commas; where "
        "they are is said by their own variables, such as MLFLOW_TRACKING_URI and WANDB_API_KEY.",
    )
    training_runs: int = Field(
        default=1, ge=1, description="Training runs at once on the `training` work pool (applied by `emissary up`)."
    )

    @field_validator("home", "models", "sources", "notifications")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser().resolve()

    @field_validator("allow_private_urls", "report_to", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return [entry.strip() for entry in value.split(",") if entry.strip()] if isinstance(value, str) else value

    @field_validator("vllm")
    @classmethod
    def _python(cls, value: Path | None) -> Path | None:
        # A virtual environment's python is a link, and another python without it.
        return None if value is None else value.expanduser().absolute()

    @field_validator("artifacts")
    @classmethod
    def _folder_or_bucket(cls, value: str | None) -> str | None:
        if value is None or "://" not in value:
            return value and str(Path(value).expanduser().resolve())
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w./-]*)?", value, re.ASCII) or ".." in value:
            raise ValueError(f"EMISSARY_ARTIFACTS is {value!r}; give a folder, or s3://bucket/prefix.")
        return value

    @model_validator(mode="after")
    def _fill(self) -> Self:
        self.home = self.home.expanduser().resolve()
        return self

    @property
    def api_url(self) -> str:
        """Where clients on this machine reach the API."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared, not bound
        return self.public_url or f"http://{host}:{self.port}"

    @property
    def prefect_api_url(self) -> str:
        """Prefect's API: the one that is set already, else the embedded server's."""
        return os.environ.get("PREFECT_API_URL") or f"http://127.0.0.1:{self.prefect_port}/api"


@lru_cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
