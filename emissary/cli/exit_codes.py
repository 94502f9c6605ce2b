"""What the exit codes of the command mean; 0 is fine."""

from emissary.errors import EmissaryError

FAILURE, WRONG_USAGE, NOT_FOUND = 1, 2, 3


class WrongUsage(EmissaryError):
    """The command cannot be understood as it was typed."""


def exit_code(error: EmissaryError) -> int:
    """The exit code of a command that ended with `error`."""
    if isinstance(error, WrongUsage):
        return WRONG_USAGE
    return NOT_FOUND if error.status == 404 else FAILURE
