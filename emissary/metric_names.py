"""The metrics of a whole test set by name, as `tasks/metrics.py` computes them."""

METRIC_NAMES = frozenset(
    {
        *("exact_match", "chrf"),
        *("accuracy", "subset_accuracy", "micro_f1", "macro_f1", "expected_calibration_error"),
        *("mae", "rmse", "r2", "spearman"),
        *("threshold_accuracy", "threshold"),
    }
)
