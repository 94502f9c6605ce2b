import random

from emissary.serving.generation import Generator
from emissary.serving.text_stream import TextStream

TEXT = "Grüße 👩‍👩‍👧 from 東京 🇯🇵!\n  Two  spaces, naïve café… END of it"


def test_pieces_are_whole_characters_and_join_to_the_text(generator: Generator) -> None:
    ids = generator.tokenizer(TEXT)["input_ids"]
    stream = TextStream(generator.tokenizer, [])
    pieces = [stream.push(id) for id in ids] + [stream.finish()]
    assert "".join(pieces) == stream.text == TEXT
    assert "" in pieces  # some tokens are parts of a character
    assert not any("�" in piece for piece in pieces)


def test_a_stop_string_across_tokens_never_appears(generator: Generator) -> None:
    stream = TextStream(generator.tokenizer, ["café… EN", "unheard"])
    given = ""
    for id in generator.tokenizer(TEXT)["input_ids"]:
        given += stream.push(id)
        assert "caf" not in given
        if stream.stopped_by:
            break
    assert stream.stopped_by == "café… EN"
    assert given == stream.text == TEXT[: TEXT.index("café")]


def test_the_beginning_of_a_stop_string_comes_out_at_the_end(generator: Generator) -> None:
    stream = TextStream(generator.tokenizer, ["it was"])
    given = "".join(stream.push(id) for id in generator.tokenizer(TEXT)["input_ids"])
    assert given == TEXT[:-2]
    assert given + stream.finish() == TEXT


def test_random_tokens_decode_as_the_tokenizer_decodes_them(generator: Generator) -> None:
    draw = random.Random(3)  # noqa: S311
    for _ in range(200):
        ids = [draw.randrange(len(generator.tokenizer)) for _ in range(30)]
        stream = TextStream(generator.tokenizer, [])
        text = "".join(stream.push(id) for id in ids)
        whole = generator.tokenizer.decode(ids, skip_special_tokens=True)
        assert whole.startswith(text)
        assert set(whole[len(text) :].rstrip("�")) == set() or "�" in whole[len(text) :]
