"""What Prefect writes into the log of a run that fails."""

import logging

from emissary.errors import EmissaryError

_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def shorten_expected_failures() -> None:
    """Have runs log an error that is meant for a person as its sentence, without the traceback, which tells them
    nothing; of all others the traceback stays.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], EmissaryError):
        record.exc_info = None
    return True
