"""The curves of a training, as pictures."""

from typing import Any

from tasks.drawing import png
from tasks.loss_plot import loss_curve_png
from tasks.reward_plots import policy, rewards


def curves(job: dict[str, Any]) -> dict[str, bytes]:
    """PNG pictures by title: the loss and, of GRPO, the rewards and what holds the policy; none before the first loss.

    `job` is a job's detail, as the API gives it.
    """
    points = job["training_loss"]
    if not points:
        return {}
    drawn = {"Training loss": loss_curve_png(points, "Training loss")}
    if job["training_technique"] == "GRPO":
        for title, draw in {"Rewards": rewards, "Policy": policy}.items():
            drawn[title] = png(draw(points, title))
    return drawn
