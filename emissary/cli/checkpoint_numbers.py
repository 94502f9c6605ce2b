"""A checkpoint as the command line names it."""

from emissary.cli.exit_codes import WrongUsage


def number_or_best(checkpoint: str) -> int | str:
    """What the API takes for `--checkpoint`; raises WrongUsage where it is neither a number nor `best`."""
    if checkpoint != "best" and not checkpoint.isdecimal():
        raise WrongUsage(f"--checkpoint: {checkpoint!r} is neither a number nor `best`.")
    return checkpoint if checkpoint == "best" else int(checkpoint)
