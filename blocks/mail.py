"""Mail over SMTP as a notification block of Prefect, which itself ships one for Sendgrid alone."""

from prefect.blocks.notifications import AppriseNotificationBlock
from pydantic import Field, SecretStr, field_validator

_SCHEMES = ("mailto://", "mailtos://")


class Mail(AppriseNotificationBlock):
    """Sends notifications as mail, over the SMTP server in its address."""

    _block_type_name = "Mail"
    _block_type_slug = "mail"
    _description = "Sends notifications as mail over an SMTP server."

    url: SecretStr = Field(
        default=...,
        title="Mail address",
        description="mailtos://USER:PASSWORD@HOST:PORT?from=SENDER&to=RECIPIENT,RECIPIENT, as Apprise has it; "
        "mailto:// is without encryption.",
        examples=["mailtos://robot:secret@smtp.example.com:587?from=robot@example.com&to=ops@example.com"],
    )

    @field_validator("url")
    @classmethod
    def _is_mail(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(_SCHEMES):
            raise ValueError(f"must begin with {' or '.join(_SCHEMES)}")
        return value
