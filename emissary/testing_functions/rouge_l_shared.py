"""ROUGE-L: the longest common subsequence of words (Lin 2004, https://aclanthology.org/W04-1013)."""

import re

from rapidfuzz.distance import Indel


def rouge_l_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """F1 of precision and recall of the words in common, in order, 0 to 1.

    Words are runs of letters, digits and underscores of any script, without regard to case, unstemmed. For languages
    that put no spaces between words, take chrF.
    """
    expected, predicted = (re.findall(r"\w+", text.casefold()) for text in (expected_output, predicted_output))
    # The distance by insertions and deletions is |a| + |b| - 2 LCS, so this is 2 LCS / (|a| + |b|), which is F1.
    return float(Indel.normalized_similarity(expected, predicted))
