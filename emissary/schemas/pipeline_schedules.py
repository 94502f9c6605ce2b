"""When a pipeline runs by itself: by a cron line, an interval, or a recurrence rule."""

import re
from typing import Annotated

from dateutil.rrule import rrulestr
from pydantic import AfterValidator, Field, model_validator

from emissary.schemas.fields import Strict
from emissary.schemas.schedules import TimeZone

_PARTS = re.compile(r"(RRULE:)?FREQ=(YEARLY|MONTHLY|WEEKLY|DAILY)(;[A-Z]+=[A-Z0-9,+-]+)*")


def rule_parts(rrule: str) -> dict[str, str]:
    """The parts of a recurrence rule by name, such as BYHOUR, in their order."""
    return dict(part.split("=") for part in rrule.removeprefix("RRULE:").split(";"))


# Stored pipelines are read by these, too, so they ask for nothing that time may change.


def _cron(value: str) -> str:
    if len(value.split()) != 5:
        raise ValueError("it must have five fields: minute, hour, day of month, month, day of week")
    return value


def _rrule(value: str) -> str:
    # One rule without DTSTART, and of no finer frequency: dateutil, and with it Prefect's server, walks through every
    # hour or second from the anchor on.
    if not _PARTS.fullmatch(value):
        raise ValueError(
            "it must be one recurrence rule of RFC 5545 in one line, such as FREQ=WEEKLY;BYDAY=MO;BYHOUR=3;BYMINUTE=0, "
            "with FREQ from DAILY to YEARLY"
        )
    parts = rule_parts(value)
    if len(parts) <= value.count(";"):
        raise ValueError("it names a part twice")
    if "COUNT" in parts:
        raise ValueError("COUNT has no start to count from; leave it out, or give UNTIL")
    if not re.fullmatch("[1-9][0-9]{0,3}", parts.get("INTERVAL", "1")):
        raise ValueError("INTERVAL must be from 1 to 9999")
    if parts.get("UNTIL", "").endswith("Z"):
        raise ValueError("UNTIL is by the clock of timezone; write it without Z")
    try:
        rrulestr(value)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"it is no recurrence rule ({error})") from error
    return value


class PipelineSchedule(Strict):
    """One of `cron`, `interval_seconds` and `rrule`, by the clock of `timezone`."""

    cron: Annotated[str, Field(strict=True, max_length=200), AfterValidator(_cron)] | None = Field(
        default=None, description="Five fields: minute, hour, day of month, month, day of week.", examples=["0 3 * * *"]
    )
    interval_seconds: Annotated[int, Field(strict=True, ge=60, le=366 * 24 * 3600)] | None = Field(
        default=None, description="Seconds between runs, counted from when the pipeline was created."
    )
    rrule: Annotated[str, Field(strict=True, max_length=500), AfterValidator(_rrule)] | None = Field(
        default=None,
        description="Recurrence rule of RFC 5545, one line without DTSTART; the time of day is BYHOUR and BYMINUTE, "
        "24 times at most.",
        examples=["FREQ=MONTHLY;BYDAY=1MO;BYHOUR=3"],
    )
    timezone: TimeZone = Field(default="UTC", description="IANA timezone.", examples=["Europe/Berlin"])

    @model_validator(mode="after")
    def _exactly_one(self) -> "PipelineSchedule":
        given = [name for name in ("cron", "interval_seconds", "rrule") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise ValueError(f"give one of cron, interval_seconds and rrule; it has {found}")
        return self
