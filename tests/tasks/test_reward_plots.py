from typing import Any

import pytest
from matplotlib.figure import Figure

from tasks import reward_plots
from tasks.drawing import png


def point(step: int, **values: Any) -> dict[str, Any]:
    usual = {
        "reward": 0.5, "reward_std": 0.1, "reward_group_std": 0.05, "rewards": {"a": 0.5}, "equal_groups": 0.25,
        "kl": 0.0, "entropy": 1.0, "completion_length": 8, "clip_ratio": 0.0,
    }  # fmt: skip
    return usual | {"step": step} | values


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The points of each line: of rewards by its label, else by its axes'."""
    found = {}
    for axes in figure.axes:
        for line in axes.lines:
            name = axes.get_ylabel() if line.get_label().startswith("_") else line.get_label()
            found[name] = [tuple(pair) for pair in line.get_xydata().tolist()]
    return found


def test_rewards_show_each_function_and_the_sum_with_its_spread() -> None:
    points = [point(1, rewards={"b": 0.0, "a": 1.0}), point(2, rewards={"b": 0.25, "a": 0.5}, reward=0.75)]
    figure = reward_plots.rewards(points, "t")
    assert lines(figure) == {
        "a": [(1, 1.0), (2, 0.5)],
        "b": [(1, 0.0), (2, 0.25)],
        "weighted sum": [(1, 0.5), (2, 0.75)],
    }
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band.round(6).tolist()} >= {(1, 0.4), (1, 0.6), (2, 0.65), (2, 0.85)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "weighted sum",
        "± standard deviation",
        "a",
        "b",
    ]


def test_a_repeated_step_counts_once_and_order_does_not_matter() -> None:
    points = [point(2, entropy=3.0), point(1, entropy=9.0), point(1, entropy=2.0)]
    assert lines(reward_plots.policy(points, "t"))["entropy\n(nats)"] == [(1, 2.0), (2, 3.0)]


def panels(points: list[dict[str, Any]]) -> list[str]:
    figure = reward_plots.policy(points, "t")
    return [axes.get_ylabel().partition("\n")[0] for axes in figure.axes if axes.axison]


def test_policy_has_a_panel_of_each_thing_that_is_measured() -> None:
    drawn = ["KL divergence", "entropy", "completion length", "clip ratio", "equal groups", "reward within groups"]
    assert panels([point(1), point(2)]) == drawn
    assert panels([point(1, kl=None), point(2, kl=None)]) == drawn[1:]  # without a penalty


def test_what_an_earlier_version_did_not_measure_is_left_out_or_begins_later() -> None:
    earlier = point(1)
    del earlier["clip_ratio"], earlier["reward_group_std"]
    assert panels([earlier]) == ["KL divergence", "entropy", "completion length", "equal groups"]
    drawn = lines(reward_plots.policy([earlier, point(2, reward_group_std=0.25)], "t"))
    assert drawn["reward within groups\n(standard deviation)"][1] == (2, 0.25)
    assert len(drawn["clip ratio\n(share of tokens)"]) == 2


def test_steps_are_told_below_the_lowest_panel_of_each_column() -> None:
    for points, below in (([point(1)], [4, 5]), ([point(1, kl=None)], [3, 4])):
        figure = reward_plots.policy(points, "t")
        assert [number for number, axes in enumerate(figure.axes) if axes.get_xlabel() == "step"] == below


@pytest.mark.parametrize("draw", [reward_plots.rewards, reward_plots.policy])
@pytest.mark.parametrize("title", ["costs $5 and $x_", "ticket_to_json"])
def test_titles_and_names_are_taken_literally_and_few_points_are_no_error(draw: Any, title: str) -> None:
    functions = {f"function_{number}_{'x' * 90}": 0.1 * number for number in range(16)}
    for points in ([], [point(1)], [point(step, rewards=functions) for step in range(1, 200)]):
        assert png(draw(points, title))[:4] == b"\x89PNG"
