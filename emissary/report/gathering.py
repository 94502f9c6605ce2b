"""What a report on a training job is made of, from the API alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emissary.client import Client, opened

Answer = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """A dataset's detail, as the API gives it, and the plots of its profile: name → PNG."""

    use: str
    detail: Answer
    plots: dict[str, bytes]


@dataclass(frozen=True)
class Gathered:
    """The API's answers about a job, and the files that they link to."""

    project: Answer
    job: Answer
    datasets: list[Dataset]
    checkpoints: list[Answer]
    events: list[Answer]
    functions: dict[str, Answer]
    """The organization's testing functions, and those that ship, by name."""
    shown: Answer | None
    """The checkpoint whose test is shown row by row: the best one, or the last that was tested; None without one."""
    results: bytes | None
    """Its results, a row per test row, as Parquet."""
    plots: dict[str, bytes]
    """Plots of its results: name → PNG."""


def gather(client: Client, project_id: str, job_id: str) -> Gathered:
    """Read all that there is about a job. Raises ApiError, and EmissaryError for a file that cannot be fetched."""
    project_path = f"/v1/projects/{project_id}"
    path = f"{project_path}/training-jobs/{job_id}"
    job = client.get(path)
    checkpoints = list(client.pages(f"{path}/checkpoints"))
    shown = _shown(checkpoints)
    used = {"Training": job["train_dataset"], "Test": job.get("test_dataset")}
    return Gathered(
        project=client.get(project_path),
        job=job,
        datasets=[
            _dataset(client, use, f"{project_path}/datasets/{row['id']}")
            for use, row in used.items()
            if row is not None
        ],
        checkpoints=checkpoints,
        events=list(client.pages(f"{path}/events")),
        functions={row["name"]: row for row in client.pages("/v1/testing-functions")},
        shown=shown,
        results=_file(shown["test_results"]["general_test_result_parquet"]) if shown else None,
        plots=_files(shown["plots"]) if shown else {},
    )


def _shown(checkpoints: list[Answer]) -> Answer | None:
    tested = [row for row in checkpoints if row.get("test_results")]
    return next((row for row in tested if row["is_best"]), tested[-1] if tested else None)


def _dataset(client: Client, use: str, path: str) -> Dataset:
    detail = client.get(path)
    return Dataset(use, detail, _files(detail["profile"].get("plots", {})))


def _files(links: Mapping[str, str]) -> dict[str, bytes]:
    return {name: _file(link) for name, link in links.items()}


def _file(link: str) -> bytes:
    with opened(link) as response:
        return response.read()
