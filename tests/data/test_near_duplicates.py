import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emissary.data.near_duplicates import repeated, signatures

WORDS = [f"w{number * 7919:x}" for number in range(3000)]


def texts(count: int, seed: int) -> list[str]:
    return [" ".join(words) for words in np.random.default_rng(seed).choice(WORDS, (count, 40))]


def test_texts_with_a_word_changed_are_found_and_halves_are_not():
    first = texts(300, 1)
    changed = [text.replace(text.split()[20], "another", 1) for text in first[:100]]
    halves = [f"{one[: len(one) // 2]} {other}" for one, other in zip(first[100:200], texts(100, 2), strict=True)]
    earlier = repeated(signatures([*first, *changed, *halves]))
    assert (earlier[:300] == -1).all()
    assert np.mean(earlier[300:400] == np.arange(100)) > 0.95
    assert (earlier[400:] == -1).all()


@settings(max_examples=40)
@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_text_has_a_signature_and_is_like_itself(given_texts):
    found = signatures(given_texts * 2)
    assert found.shape == (2 * len(given_texts), 64)
    assert (found[: len(given_texts)] == found[len(given_texts) :]).all()
    assert (repeated(found)[len(given_texts) :] >= 0).all()


def test_signature_does_not_depend_on_the_other_texts():
    some = [*texts(5, 3), "a", "", "Ünï"]
    assert (signatures(some) == np.concatenate([signatures([text]) for text in some])).all()


def test_case_and_white_space_do_not_count():
    assert (signatures(["My order  is late\n"]) == signatures(["my ORDER is late"])).all()
