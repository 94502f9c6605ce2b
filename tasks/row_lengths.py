"""How many tokens the rows of a job have, and how many rows are cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emissary.serving.adapter_task import AdapterTask
from tasks.grpo_training import prompts
from tasks.model_shape import ModelShape
from tasks.pooled_rows import examples
from tasks.sft_rows import tokenised


@dataclass(frozen=True)
class RowLengths:
    """Of each row the tokens of its longest text, as it is trained on; all rows' tokens; how many rows were cut."""

    longest: list[int]
    tokens: int
    cut: int


def row_lengths(
    rows: Sequence[Any], shape: ModelShape, parameters: Mapping[str, Any], task: AdapterTask | None
) -> RowLengths:
    """The lengths of `rows` as the trainer of the job cuts them; of GRPO the prompts alone. `task` is None for text
    generation. Raises InvalidInput as the trainer for a row that cannot be trained on.
    """
    max_length = min(parameters["max_length"], shape.context)
    if task is not None:
        made, cut = examples(rows, task, shape.tokenizer, max_length)
        return RowLengths([row.length for row in made], sum(len(ids) for row in made for ids in row.ids), cut)
    if "num_generations" in parameters:
        made, cut = prompts(rows, shape.tokenizer, max(1, max_length - parameters["max_completion_length"]))
        lengths = [len(ids) for ids in made["prompt"]]
    else:
        made, cut = tokenised(rows, shape.tokenizer, max_length)
        lengths = [len(ids) for ids in made["input_ids"]]
    return RowLengths(lengths, sum(lengths), cut)
