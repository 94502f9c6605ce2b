"""Runs the `emissary` command as a person types it."""

import json
import os
import subprocess
import sys
from typing import Any

from emissary.up import Platform

COMMAND = [sys.executable, "-m", "emissary.cli"]


def environment(platform: Platform) -> dict[str, str]:
    return os.environ | {"EMISSARY_URL": platform.api_url, "EMISSARY_PROJECT": "cli", "COLUMNS": "200", "NO_COLOR": "1"}


def emissary(platform: Platform, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(platform) | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def fine(platform: Platform, *arguments: str, **variables: str) -> str:
    """What the command prints on stdout; it must succeed."""
    done = emissary(platform, *arguments, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answer(platform: Platform, *arguments: str, **variables: str) -> Any:
    """The JSON that the command prints."""
    return json.loads(fine(platform, *arguments, "--json", **variables))
