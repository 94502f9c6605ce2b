"""When a run begins again after a crash, and the sentences with which it fails."""

from datetime import timedelta
from typing import Any

import pytest

from emissary.api.crashes import MOST_CRASHES, crash_sentence, restart_after
from emissary.store.tables import Deployment, Engine, FlowBacked, TrainingJob

SFT = {"per_device_train_batch_size": 8, "max_length": 1024}
GRPO = SFT | {"num_generations": 4, "max_completion_length": 64}
NO_MEMORY = "Out of memory: the kernel killed the process, which held 7.5 GiB."
KILLED = "Process exited with status code: -9. See the log."


def job(technique: str, parameters: dict[str, Any]) -> TrainingJob:
    return TrainingJob(id="tr-1", training_technique=technique, hyper_parameters=parameters, crashes=3)


ENGINE = Engine(id="engine-1", base_model="large", crashes=3)
DEPLOYMENT = Deployment(id="dp-1", crashes=3)


def test_waits_grow_and_the_last_crash_has_none() -> None:
    assert [restart_after(crashes) for crashes in (1, 2)] == [timedelta(0), timedelta(seconds=5)]
    assert restart_after(MOST_CRASHES) is None
    assert restart_after(MOST_CRASHES + 1) is None
    assert MOST_CRASHES == 3


@pytest.mark.parametrize(
    ("row", "lower"),
    [
        (job("SFT", SFT), ["per_device_train_batch_size (now 8)", "max_length (now 1024)"]),
        (job("GRPO", GRPO), ["num_generations (now 4)", "max_completion_length (now 64)"]),
        (ENGINE, ["smaller base model than large"]),
        (DEPLOYMENT, ["fewer checkpoints"]),
    ],
)
def test_out_of_memory_says_what_to_lower(row: FlowBacked, lower: list[str]) -> None:
    sentence = crash_sentence(row, NO_MEMORY)
    assert sentence.startswith("The process died 3 times in a row")
    assert "out of memory" in sentence
    assert all(words in sentence for words in lower), sentence


@pytest.mark.parametrize("row", [job("SFT", SFT), ENGINE, DEPLOYMENT])
def test_kill_without_the_kernels_killer_says_so(row: FlowBacked) -> None:
    sentence = crash_sentence(row, KILLED)
    assert "signal 9" in sentence
    assert "out of memory" not in sentence
    assert "lower" not in sentence


@pytest.mark.parametrize("message", [None, "", "  ", "Process exited with status code: -11.", "status code: -99"])
def test_other_crash_is_one_plain_sentence_with_what_is_known(message: str | None) -> None:
    sentence = crash_sentence(job("SFT", SFT), message)
    assert "memory" not in sentence
    assert "signal 9" not in sentence
    assert (message or "").strip().rstrip(".") in sentence
    assert "None" not in sentence
    assert "  " not in sentence
