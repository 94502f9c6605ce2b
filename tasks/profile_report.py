"""A dataset's profile as a page in the Prefect UI."""

import base64
import html
from functools import partial

import anyio.to_thread
from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from emissary.data.profiling import DatasetProfile
from emissary.store.artifacts import artifact_store
from emissary.store.tables import Dataset
from tasks.patience import patiently
from tasks.reporting import report, reported

_MOST_CLASSES = 20
_SHOWN = ("min", "p5", "median", "p95", "max")


@task(task_run_name="show-profile", cache_policy=NO_CACHE)
async def show(dataset: Dataset, profile: DatasetProfile, key: str) -> None:
    """Show the profile, whose plots are in the artifact `key`, and wait until Prefect does."""
    report("The profile", partial(_publish, dataset, profile, key))
    await reported()


async def _publish(dataset: Dataset, profile: DatasetProfile, key: str) -> None:
    pictures = await anyio.to_thread.run_sync(_pictures, profile, key)
    await acreate_markdown_artifact(
        markdown=page(dataset, profile, pictures),
        key=f"profile-{dataset.id}".lower(),
        description=f"What the rows of {dataset.name} are like",
    )


def _pictures(profile: DatasetProfile, key: str) -> dict[str, bytes]:
    # By the folder, for a single file of a local store is not checked.
    folder = patiently(artifact_store().folder, key)
    return {name: (folder / f"{name}.png").read_bytes() for name in profile.plots}


def page(dataset: Dataset, profile: DatasetProfile, pictures: dict[str, bytes]) -> str:
    """The profile in Markdown, with its pictures in it."""
    about = dataset.report
    fits = ", ".join(about["compatible_task_types"])
    parts = [f"# {_text(dataset.name)}", f"{about['rows']} rows, fit for {fits}.", f"`{dataset.id}`"]
    if warnings := [*about["warnings"], *profile.warnings]:
        parts.append("## Worth knowing\n\n" + "\n".join(f"- {_text(warning)}" for warning in warnings))
    if classes := about["class_counts"]:
        largest = sorted(classes.items(), key=lambda item: -item[1])[:_MOST_CLASSES]
        rows = "\n".join(f"| {_text(name)} | {count} |" for name, count in largest)
        more = f"\n\n{len(classes) - len(largest)} smaller classes are left out." if len(classes) > len(largest) else ""
        parts.append(f"## Classes ({about['label_kind']})\n\n| class | rows |\n| --- | --- |\n{rows}{more}")
    lengths = {f"{_text(name)}, characters": field.characters for name, field in profile.fields.items()}
    if profile.tokens is not None:
        lengths[f"tokens of {profile.tokens.base_model} ({profile.tokens.rows} rows)"] = profile.tokens.lengths
    table = {"target": profile.target, **lengths}
    lines = [
        f"| {name} | " + " | ".join(f"{spread.quantiles[quantile]:.4g}" for quantile in _SHOWN) + " |"
        for name, spread in table.items()
        if spread is not None
    ]
    head = f"| | {' | '.join(_SHOWN)} |\n| --- |{' --- |' * len(_SHOWN)}\n"
    parts.append("## Values and lengths\n\n" + head + "\n".join(lines))
    parts += [
        f"![{name}](data:image/png;base64,{base64.b64encode(picture).decode()})" for name, picture in pictures.items()
    ]
    return "\n\n".join(parts) + "\n"


def _text(value: str) -> str:
    """`value`, which may be anything that somebody uploaded, as text in Markdown."""
    plain = html.escape(" ".join(value.split()), quote=False)  # of an entity with # the backslash makes text
    return "".join(f"\\{character}" if character in r"\`*_{}[]#|!~" else character for character in plain)
