"""Weekly windows of time in which an engine runs."""

import re
from typing import Annotated, Literal, get_args
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
_TIME_OF_DAY = "([01][0-9]|2[0-3]):[0-5][0-9]"
DAYS: tuple[Day, ...] = get_args(Day)


def _known_timezone(value: str) -> str:
    # `localtime` is the machine's own, whichever that is.
    if value not in available_timezones() - {"localtime"}:
        raise ValueError(f"{value[:60]!r} is no IANA timezone; give one such as 'America/Los_Angeles' or 'UTC'")
    return value


def _time_of_day(value: str) -> str:
    if not re.fullmatch(_TIME_OF_DAY, value):
        raise ValueError(f"{value[:60]!r} is not HH:MM, from 00:00 to 23:59")
    return value


TimeOfDay = Annotated[
    str,
    Field(strict=True, json_schema_extra={"pattern": f"^{_TIME_OF_DAY}$"}, examples=["10:00"]),
    AfterValidator(_time_of_day),
]
"""HH:MM from 00:00 to 23:59."""

TimeZone = Annotated[str, Field(strict=True), AfterValidator(_known_timezone)]
"""The name of an IANA timezone."""


class Schedule(BaseModel):
    """Runs from `start_time` to `end_time` on `days`, by the clock of `timezone`.

    A window whose end is not after its start lasts past midnight and belongs to the day on which it starts.
    """

    timezone: TimeZone = Field(description="IANA timezone.", examples=["America/Los_Angeles"])
    start_time: TimeOfDay = Field(description="When the window opens, HH:MM.")
    end_time: TimeOfDay = Field(description="When the window closes, HH:MM; before start_time: on the next day.")
    days: list[Day] = Field(
        default=list(DAYS), min_length=1, description="Days on which the window opens; left out, all."
    )

    @field_validator("days")
    @classmethod
    def _in_order(cls, value: list[Day]) -> list[Day]:
        return sorted(set(value), key=DAYS.index)

    @field_validator("end_time")
    @classmethod
    def _not_empty(cls, value: str, info: ValidationInfo) -> str:
        if value == info.data.get("start_time"):
            raise ValueError(f"must differ from start_time, {value}; a window is shorter than a day")
        return value
