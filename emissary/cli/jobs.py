"""`emissary jobs`."""

import time
from typing import Annotated, Any

import typer
from rich.progress import Progress

from emissary.cli.checkpoint_numbers import number_or_best
from emissary.cli.connection import AsJson, InProject, connect, find, given, path_of, project_path
from emissary.cli.downloading import Output, download
from emissary.cli.exit_codes import WrongUsage
from emissary.cli.output import clean, messages, say, show_json, show_list, show_one
from emissary.cli.pairs import numbers, values
from emissary.client import Client
from emissary.errors import EmissaryError

app = typer.Typer(no_args_is_help=True, help="Training jobs.")
Job = Annotated[str, typer.Argument(help="Id or name of the job.")]
ENDED = ("Success", "Failed", "TimedOut", "Cancelled")


def jobs_path(client: Client, project: str) -> str:
    """The API's path of a project's jobs."""
    return f"{project_path(client, project)}/training-jobs"


def job_path(client: Client, project: str, job: str) -> str:
    """The API's path of the job that `job` names."""
    return path_of(client, jobs_path(client, project), job, "training job")


@app.command("list")
def list_(ctx: typer.Context, project: InProject, as_json: AsJson = False) -> None:
    """List a project's jobs, the newest first."""
    client = connect(ctx)
    fields = ("id", "name", "base_model", "training_technique", "status", "progress", "created_at")
    show_list(client.get(jobs_path(client, project)), as_json, *fields)


@app.command()
def show(ctx: typer.Context, job: Job, project: InProject, as_json: AsJson = False) -> None:
    """Show a job with its parameters and its latest training loss."""
    client = connect(ctx)
    found = client.get(job_path(client, project, job))
    show_one(found if as_json else found | {"training_loss": found["training_loss"][-1:]}, as_json)


@app.command()
def create(
    ctx: typer.Context,
    project: InProject,
    train_dataset: Annotated[str, typer.Option(help="Id or name of the dataset to train on.")],
    base_model: Annotated[str | None, typer.Option(help="The base model to start from.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Or the earlier job (id or name) whose adapter to train on.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="NUMBER|best", help="With --from: the checkpoint; SFT takes the best one without."),
    ] = None,
    hf_model: Annotated[str | None, typer.Option(help="Or a Hugging Face model: its page, or owner/name.")] = None,
    test_dataset: Annotated[str | None, typer.Option(help="Id or name of the dataset to test on.")] = None,
    test_split: Annotated[float | None, typer.Option(help="Percentage of the training rows to test on.")] = None,
    test_function: Annotated[list[str] | None, typer.Option(help="Testing function; repeat for several.")] = None,
    reward: Annotated[
        list[str] | None, typer.Option(metavar="FUNCTION=WEIGHT", help="Train with GRPO on this reward; repeat.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Hyperparameter; repeat.")
    ] = None,
    rebalance: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=NUMBER", help="Ratio or number of rows of a label; repeat.")
    ] = None,
    task_type: Annotated[
        str | None,
        typer.Option(help="text-generation, classification, embedding, regression; with --from that of the job."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the job.")] = None,
    description: Annotated[str | None, typer.Option(help="What the job is for.")] = None,
    timeout_seconds: Annotated[int | None, typer.Option(help="How long its run may take, up to 30 days.")] = None,
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Push the best checkpoint to the hub, private."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Create nothing; say what the job would be and take.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a model: supervised, or with --reward by reinforcement (GRPO)."""
    if [base_model, start, hf_model].count(None) != 2:
        raise WrongUsage("Give one of --base-model, --from and --hf-model.")
    number = None if checkpoint is None else number_or_best(checkpoint)
    client = connect(ctx)
    datasets = client.get(f"{project_path(client, project)}/datasets")
    parent = find(client.get(jobs_path(client, project)), start, "training job") if start else None
    body: dict[str, Any] = {
        "base_model": parent["id"] if parent else base_model or "HF_MODEL",
        "base_model_option": "fine-tuned" if parent else None,
        "checkpoint": number,
        "hf_model_link": hf_model,
        "train_dataset_id": find(datasets, train_dataset, "dataset")["id"],
        "test_dataset_id": test_dataset and find(datasets, test_dataset, "dataset")["id"],
        "train_test_split_ratio": test_split,
        "test_functions": test_function,
        "reward": numbers("--reward", reward),
        "parameters": values("--parameter", parameter),
        "rebalance_data": numbers("--rebalance", rebalance),
        "task_type": task_type or (parent and parent["task_type"]),
        "name": name,
        "description": description,
        "timeout_seconds": timeout_seconds,
        "push_to_hub": push_to_hub and {"repo": push_to_hub},
    }
    path = jobs_path(client, project) + ("/grpo" if reward else "")
    if dry_run:
        found = client.post(f"{path}?dry_run=true", given(body))
        show_one(found if as_json else _flat(found), as_json)
        return
    show_one(client.post(path, given(body)), as_json)


def _flat(plan: dict[str, Any]) -> dict[str, Any]:
    """A dry run's answer, a line for each figure of its estimate, without what it could not find out."""
    lines = plan | (plan["estimate"] or {})
    return {name: value for name, value in lines.items() if value not in (None, []) and name != "estimate"}


@app.command()
def watch(ctx: typer.Context, job: Job, project: InProject, as_json: AsJson = False) -> None:
    """Follow a job to its end; exits with 1 when it does not succeed. Ctrl-C ends the watching only."""
    client = connect(ctx)
    path = job_path(client, project, job)
    with Progress(console=messages()) as bar:
        shown = bar.add_task("Pending", total=100)
        while True:
            found = client.get(path)
            bar.update(shown, completed=found["progress"], description=clean(found["status"]))
            if found["status"] in ENDED:
                break
            time.sleep(1)
    if as_json:
        show_json(found)
    if found["status"] != "Success":
        raise EmissaryError(f"The job ended as {found['status']}: {found['error'] or 'no reason given.'}")


@app.command()
def cancel(ctx: typer.Context, job: Job, project: InProject) -> None:
    """Stop a job; complete checkpoints stay."""
    client = connect(ctx)
    client.post(f"{job_path(client, project, job)}/cancel")
    say(f"The job {job} is cancelled.")


@app.command()
def resume(ctx: typer.Context, job: Job, project: InProject) -> None:
    """Go on with a job that failed, was timed out or cancelled, from its last checkpoint."""
    client = connect(ctx)
    client.post(f"{job_path(client, project, job)}/resume")
    say(f"The job {job} goes on.")


@app.command()
def push(
    ctx: typer.Context,
    job: Job,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face hub.")],
    project: InProject,
    checkpoint: Annotated[int | None, typer.Option(help="The checkpoint; the best one without.")] = None,
    public: Annotated[bool, typer.Option("--public", help="Make the repository public, where it is made.")] = False,
    as_json: AsJson = False,
) -> None:
    """Push a job's checkpoint to the Hugging Face hub, with a model card."""
    client = connect(ctx)
    body = given({"repo": repo, "private": not public, "checkpoint": checkpoint})
    show_one(client.post(f"{job_path(client, project, job)}/push-to-hub", body), as_json)


@app.command()
def logs(ctx: typer.Context, job: Job, project: InProject, as_json: AsJson = False) -> None:
    """Print the lines that a job's run has logged."""
    client = connect(ctx)
    lines = list(client.pages(f"{job_path(client, project, job)}/logs"))
    show_list(lines, as_json, "timestamp", "level", "message")


@app.command()
def events(ctx: typer.Context, job: Job, project: InProject, as_json: AsJson = False) -> None:
    """List what happened to a job, and when."""
    client = connect(ctx)
    found = client.get(f"{job_path(client, project, job)}/events")
    show_list(found, as_json, "created_at", "kind", "details")


@app.command()
def tensorboard(ctx: typer.Context, job: Job, project: InProject, output: Output = None) -> None:
    """Save a job's curves and scores as an archive with an event file for TensorBoard."""
    client = connect(ctx)
    download(client.get(f"{job_path(client, project, job)}/tensorboard")["download_url"], output)


@app.command()
def delete(
    ctx: typer.Context,
    job: Job,
    project: InProject,
    force: Annotated[
        bool, typer.Option("--force", help="Also where other jobs, which have ended, started from it.")
    ] = False,
) -> None:
    """Delete an ended job with its checkpoints."""
    client = connect(ctx)
    client.delete(job_path(client, project, job) + ("?force=true" if force else ""))
    say(f"The job {job} is deleted.")
