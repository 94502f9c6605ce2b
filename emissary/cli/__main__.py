"""`python -m emissary.cli`."""

from emissary.cli import app

app()
