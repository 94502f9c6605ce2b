"""The commands that a report gives to call a checkpoint."""

import json
import shlex

import pytest

from emissary.report.calling import commands


@pytest.mark.parametrize(
    ("task_type", "operation"),
    [
        ("text-generation", "chat/completions"),
        ("classification", "classification"),
        ("regression", "regression"),
        ("embedding", "embeddings"),
    ],
)
def test_commands_name_the_checkpoint_and_quote_names_for_the_shell(task_type: str, operation: str) -> None:
    name = 'it\'s; $(rm x) "é"'
    text = commands("ms-1", {"id": "tr-1", "name": name, "task_type": task_type}, 3)
    words = shlex.split(text.replace("\\\n", ""))
    assert words[words.index("--job") + 1 : words.index("--job") + 5] == ["tr-1", "--checkpoint", "3", "--name"]
    assert words[words.index("--name") + 1] == name
    assert f"$EMISSARY_URL/v1/{operation}" in words
    assert json.loads(words[-1])["model"] == name
