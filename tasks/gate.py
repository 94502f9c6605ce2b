"""The gate: whether a challenger is better than the champion by the pipeline's rules, from numbers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emissary.schemas.decisions import GateRule
from emissary.schemas.pipelines import Gate
from emissary.testing_function_files import goodness
from tasks.checkpoint_testing import aggregate

RESAMPLES = 10_000
_SEED = 0
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Measured:
    """How a model did: `scores` of each testing function per test row (None: it gave none), in the same order for
    every model; and for classification the recall of each class (None: no test row has it).
    """

    scores: Mapping[str, Sequence[float | None]]
    recalls: Mapping[str, float | None]


def apply(gate: Gate, first: str, challenger: Measured, champion: Measured | None) -> list[GateRule]:
    """Each rule of the gate that applies, with what was found; `first` is the testing function that is compared.

    A rule that there is nothing to measure by is not met. Without a champion only `minimum_score` applies.
    """
    means = aggregate(challenger.scores)
    rules = [_minimum(name, wanted, means.get(name)) for name, wanted in gate.minimum_score.items()]
    if champion is None:
        return rules
    rules.append(_improvement(gate.minimum_improvement, first, means, aggregate(champion.scores)))
    if gate.class_tolerance is not None:
        rules += [
            _class(name, gate.class_tolerance, challenger.recalls.get(name), recall)
            for name, recall in champion.recalls.items()
            if recall is not None
        ]
    if gate.confidence is not None:
        share = confidence(differences(first, challenger, champion))
        passed = share is not None and share >= gate.confidence
        rules.append(GateRule(rule="confidence", of=first, wanted=gate.confidence, found=share, passed=passed))
    return rules


def differences(function: str, challenger: Measured, champion: Measured) -> list[float]:
    """By how much the challenger is better, on each test row that the function scored for both."""
    pairs = zip(challenger.scores[function], champion.scores[function], strict=True)
    return [
        goodness(function, ours) - goodness(function, theirs)
        for ours, theirs in pairs
        if ours is not None and theirs is not None
    ]


def confidence(found: Sequence[float]) -> float | None:
    """The share of paired bootstrap resamples of these differences whose mean is above 0; None below two of them.

    The method is Efron and Tibshirani's percentile bootstrap (An Introduction to the Bootstrap, 1993, chapter 13), as
    Koehn (2004, "Statistical Significance Tests for Machine Translation Evaluation") compares two systems.
    """
    if len(found) < 2:
        return None
    # Here, for it takes half a second to import, which only pipelines pay.
    from scipy.stats import bootstrap

    drawn = bootstrap(
        (np.array(found),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 10_000_000 // len(found)),
        method="percentile",
        rng=np.random.default_rng(_SEED),
    )
    return float(np.mean(drawn.bootstrap_distribution > _ROUNDING))


def _minimum(name: str, wanted: float, found: float | None) -> GateRule:
    passed = found is not None and goodness(name, found) >= goodness(name, wanted)
    return GateRule(rule="minimum_score", of=name, wanted=wanted, found=found, passed=passed)


def _improvement(wanted: float, first: str, ours: Mapping[str, float], theirs: Mapping[str, float]) -> GateRule:
    found = None
    if first in ours:
        # A champion that no row could be scored for is worse than any that has scores.
        found = goodness(first, ours[first]) - goodness(first, theirs[first]) if first in theirs else float("inf")
    passed = found is not None and found >= wanted - _ROUNDING
    shown = None if found is None or np.isinf(found) else found
    return GateRule(rule="minimum_improvement", of=first, wanted=wanted, found=shown, passed=passed)


def _class(name: str, tolerance: float, ours: float | None, theirs: float) -> GateRule:
    found = None if ours is None else ours - theirs
    passed = found is not None and found >= -tolerance - _ROUNDING
    return GateRule(rule="class_tolerance", of=name, wanted=-tolerance, found=found, passed=passed)


def sentence(rules: Sequence[GateRule], champion: bool) -> str:
    """What the rules say together."""
    missed = [rule for rule in rules if not rule.passed]
    if missed:
        said = [
            f"{rule.rule}{f' of {rule.of}' if rule.of else ''} is "
            f"{'not known' if rule.found is None else f'{rule.found:.4g}'}, wanted {rule.wanted:.4g}"
            for rule in missed[:3]
        ]
        more = f"; and {len(missed) - 3} more" if len(missed) > 3 else ""
        return f"{len(missed)} of {len(rules)} rules of the gate are not met: {'; '.join(said)}{more}."
    met = "The one rule of the gate is met" if len(rules) == 1 else f"All {len(rules)} rules of the gate are met"
    return f"{met if rules else 'The gate has no rules'}; {_compared(rules, champion)}."


def _compared(rules: Sequence[GateRule], champion: bool) -> str:
    if not champion:
        return "compared with nothing, for nothing was deployed"
    better = next((rule.found for rule in rules if rule.rule == "minimum_improvement"), None)
    if better is None or better > _ROUNDING:
        return "better than what was deployed"
    return f"{'as good as' if better >= -_ROUNDING else 'worse than'} what was deployed"
