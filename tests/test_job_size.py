"""The rows and steps of a job are those that its run then has."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from emissary.data.rebalancing import rebalance, row_counts
from emissary.data.splitting import downsample, split
from emissary.job_size import checkpoint_steps, epoch_steps, row_numbers
from emissary.store.tables import Dataset, TrainingJob

PERCENT = st.floats(1, 99)


@given(
    st.integers(2, 400),
    st.none() | PERCENT,
    st.floats(0.01, 100),
    st.none() | st.floats(0, 1) | st.integers(1, 50),
    st.integers(0, 9),
)
def test_rows_are_those_of_splitting_downsampling_and_rebalancing(
    rows: int, percent: float | None, kept: float, share: float | None, seed: int
) -> None:
    classes = ["a" if number % 2 else "b" for number in range(rows)]
    counts = {"a": classes.count("a"), "b": classes.count("b")}
    wanted = None
    if share is not None:
        wanted = {"a": share, "b": share} if share > 1 else {"a": share, "b": 1 - share}
    job = TrainingJob(
        train_dataset=Dataset(report={"rows": rows, "class_counts": counts}),
        train_test_split_ratio=percent,
        hyper_parameters={"downsample_size": kept},
        rebalance_data=wanted,
    )
    training, test = (list(range(rows)), []) if percent is None else split(rows, percent, seed, classes)
    chosen = downsample(training, kept, seed)
    expected = len(chosen)
    if wanted is not None:
        target = row_counts(wanted, counts, len(chosen))
        expected = sum(target.values())
        if all(not number or label in {classes[i] for i in chosen} for label, number in target.items()):
            assert len(rebalance([classes[i] for i in chosen], target, seed)) == expected
    assert row_numbers(job) == (expected, len(test))


def test_steps_are_whole_and_grpo_leaves_the_rest_out() -> None:
    sft: dict[str, Any] = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "save_steps": 1}
    assert [epoch_steps(sft, rows) for rows in (1, 8, 9, 17)] == [1, 1, 2, 3]
    assert checkpoint_steps(sft, 17) == 3
    grpo = sft | {"num_generations": 4, "save_steps": 5}
    assert [epoch_steps(grpo, rows) for rows in (1, 8, 9, 17)] == [0, 4, 4, 8]
    assert [checkpoint_steps(grpo, rows) for rows in (8, 17)] == [4, 5]
