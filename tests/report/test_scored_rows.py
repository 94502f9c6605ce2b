"""Which test rows are shown as the worst and the best."""

import io

import pyarrow as pa
import pyarrow.parquet as pq

from emissary.report.scored_rows import extremes


def parquet(scores: list[float | None], answer: str = "red") -> bytes:
    file = io.BytesIO()
    columns = {"input": "Say red.", "expected_output": "red", "output": answer}
    texts = {name: pa.array([text] * len(scores), pa.string()) for name, text in columns.items()}
    pq.write_table(pa.table(texts | {"score": pa.array(scores, pa.float64())}), file)
    return file.getvalue()


def test_worst_and_best_rows_are_ten_each_with_equal_scores_in_the_order_of_the_test_set() -> None:
    found = extremes(parquet([0.5] * 20 + [1.0, 0.0, None]), "score", higher_is_better=True)
    assert [row.number for row in found.worst] == [22, *range(1, 10)]
    assert [row.number for row in found.best] == [21, *range(1, 10)]
    assert (found.worst[0].score, found.rows, found.unscored) == (0.0, 23, 1)


def test_of_an_error_the_highest_score_is_the_worst() -> None:
    found = extremes(parquet([float(score) for score in range(30)]), "score", higher_is_better=False)
    assert [row.score for row in found.worst] == [float(score) for score in range(29, 19, -1)]
    assert [row.score for row in found.best] == [float(score) for score in range(10)]


def test_no_row_is_among_the_worst_and_the_best() -> None:
    found = extremes(parquet([float(score) for score in range(13)]), "score", higher_is_better=True)
    assert [row.number for row in found.worst] == list(range(1, 11))
    assert [row.number for row in found.best] == [13, 12, 11]
    few = extremes(parquet([0.2, 0.1]), "score", higher_is_better=True)
    assert ([row.number for row in few.worst], few.best) == ([2, 1], [])


def test_function_that_scored_no_row_has_no_extremes() -> None:
    for function in ("score", "other"):
        found = extremes(parquet([None, None]), function, higher_is_better=True)
        assert (found.worst, found.best, found.rows, found.unscored) == ([], [], 2, 2)


def test_long_text_loses_its_end() -> None:
    (row,) = extremes(parquet([1.0], "a" * 5000), "score", higher_is_better=True).worst
    assert row.answer == "a" * 600 + " … (4,400 more characters)"
