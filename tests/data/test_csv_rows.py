"""CSV in the dialects that programs write."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emissary.data.content import Content
from emissary.data.csv_rows import is_header, read_csv
from emissary.errors import InvalidInput

Pairs = list[tuple[str, str]]
# csv.writer does not quote a carriage return unless lines end in one.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)
TRICKY = st.text("ab ,;\t|'\"\\\n", max_size=6)
PAIRS = st.lists(st.tuples(TEXT | TRICKY, TEXT | TRICKY), max_size=6)
DELIMITERS = [",", ";", "\t", "|"]
OTHERS: dict[str, dict[str, Any]] = {
    "single quotes": {"quotechar": "'"},
    "backslashes": {"escapechar": "\\", "doublequote": False},
    "backslashes without quotes": {"escapechar": "\\", "quoting": csv.QUOTE_NONE},
    "backslashes and single quotes": {"quotechar": "'", "escapechar": "\\", "doublequote": False},
    "single quotes around all": {"quotechar": "'", "quoting": csv.QUOTE_ALL},
}


def written(pairs: Pairs, header: tuple[str, str] = ("input", "expected_output"), **dialect: Any) -> str:
    file = io.StringIO()
    csv.writer(file, **dialect).writerows([header, *pairs])
    return file.getvalue()


def records(text: str) -> list[tuple[int, Any]]:
    return list(read_csv(Content(io.BytesIO(text.encode()))))


def read(text: str) -> Pairs:
    found = [row for _, row in records(text)]
    assert [row for row in found if isinstance(row, str)] == []
    return [(row["prompt"], row["completion"]) for row in found]


@given(
    PAIRS,
    st.sampled_from(DELIMITERS),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_file_as_rfc_4180_has_it_is_read_as_it_was_written(pairs, delimiter, quoting, line_end):
    assert read(written(pairs, delimiter=delimiter, quoting=quoting, lineterminator=line_end)) == pairs


@given(PAIRS, st.sampled_from(DELIMITERS), st.sampled_from(sorted(OTHERS)), st.sampled_from(["\n", "\r\n"]))
def test_file_that_cannot_be_one_of_rfc_4180_is_read_in_the_dialect_it_was_written_in(
    pairs, delimiter, other, line_end
):
    shown = [(f'"It\'s"{delimiter} he said', "x"), *pairs]
    assert read(written(shown, delimiter=delimiter, lineterminator=line_end, **OTHERS[other])) == shown


@given(PAIRS, st.sampled_from(DELIMITERS))
def test_fields_that_are_quoted_behind_a_space_are_read_without_the_quotes(pairs, delimiter):
    shown = [("a", "b"), *pairs]
    quoted = [[f'"{text.replace(chr(34), 2 * chr(34))}"' for text in pair] for pair in shown]
    lines = [f"{delimiter} ".join(fields) for fields in [["input", "expected_output"], *quoted]]
    assert read("\n".join(lines)) == shown


@given(PAIRS, st.sampled_from([{}, *OTHERS.values()]))
def test_lines_may_end_in_a_carriage_return_alone(pairs, dialect):
    flat = [tuple(" ".join(text.split()) for text in pair) for pair in pairs]
    shown = [('"It\'s", he said', "x"), *flat]
    assert read(written(shown, lineterminator="\r", **dialect)) == shown


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("sep=;\r\ninput;expected_output\r\na,1;b\r\n", [(3, "a,1", "b")]),
        ('"sep=^"\ninput^expected_output\n"a^b"^c\n', [(3, "a^b", "c")]),
        ("SEP=\t\ninput\texpected_output\na\tb\n", [(3, "a", "b")]),
        ("Input,EXPECTED_OUTPUT,Note\na,b,c\n", [(2, "a", "b")]),
        ("'Input', 'Expected_Output'\n'a, b', 'c'\n", [(2, "a, b", "c")]),
        ("input, expected_output\na, b\n", [(2, "a", " b")]),
        ("input,expected_output\n'a','b'\n", [(2, "'a'", "'b'")]),
        ('input,expected_output\nC:\\new,\\"\n', [(2, "C:\\new", '\\"')]),
        ("Input,input,expected_output\nx,a,b\n", [(2, "a", "b")]),
        ("\rinput,expected_output\r\ra,b\r", [(4, "a", "b")]),
        (
            "input,expected_output\n'Tis so,b\nit's,c\n'twas,d",
            [(2, "'Tis so", "b"), (3, "it's", "c"), (4, "'twas", "d")],
        ),
    ],
)
def test_dialect_is_told_by_the_beginning(text, wanted):
    assert [(line, row["prompt"], row["completion"]) for line, row in records(text)] == wanted


def test_pairs_of_texts_may_have_their_header_in_another_case():
    assert records("Text1;TEXT2;Score\na;b;0.5\n") == [
        (2, {"itemA": {"text": "a"}, "itemB": {"text": "b"}, "similarity": "0.5"})
    ]


def test_row_that_fits_no_dialect_changes_nothing_for_the_others():
    found = records("input,expected_output\n'a','b'\n'c','d','e'\n")
    assert found[0] == (2, {"prompt": "'a'", "completion": "'b'"})
    assert "number of fields is 3" in found[1][1]
    found = records("'input','expected_output'\n'a, b','c'\n'd'\n")
    assert found[0] == (2, {"prompt": "a, b", "completion": "c"})
    assert "number of fields is 1" in found[1][1]


@pytest.mark.parametrize("dialect", [{}, *OTHERS.values()])
def test_beginning_that_ends_within_a_row_tells_the_dialect_all_the_same(dialect):
    long = [('"It\'s", he said', "x"), ("a\nb," * 40_000, "'tis"), ("c", "d")]
    assert read(written(long, lineterminator="\n", **dialect)) == long


def test_what_the_beginning_does_not_show_is_refused_rather_than_guessed():
    plain = [("a", "b")] * 30_000
    found = records(written(plain, lineterminator="\n") + "'c, d','e'\n")
    assert "number of fields is 3" in found[-1][1]
    with pytest.raises(InvalidInput, match="has no column 'input'"):
        records("sep=;\nquestion;answer\na;b\n")


@pytest.mark.parametrize(
    "text", ["sep=;\ninput;expected_output\n", "'Input', 'expected_output'\n", "Text1|text2|SCORE\n"]
)
def test_header_is_known_in_every_dialect(text):
    assert is_header(text.splitlines(keepends=True))
    assert not is_header([text.replace("t", "d")])


def test_columns_without_name_at_the_end_of_a_spreadsheets_lines_are_left_out() -> None:
    rows = [row for _, row in records("input,expected_output,,\na,b,,\nc,d,,note\n")]
    assert rows == [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d", "": "note"}]
