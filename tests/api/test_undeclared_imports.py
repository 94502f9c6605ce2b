import pytest

from emissary.api.undeclared_imports import undeclared_imports


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import json, no_such.part\n", "No module named 'no_such' (line 1)\n"),
        ("import os.path\n\ndef f():\n    from no_such.part import x\n    import no_other\n", "'no_such' (line 4)\n"),
        ("try:\n    import no_such\nexcept ValueError:\n    pass\n", "'no_such' (line 2)\n"),
        ("try:\n    import no_such\nexcept ImportError:\n    import no_other\n", ""),
        ("try:\n    import no_such\nexcept (KeyError, ModuleNotFoundError):\n    pass\n", ""),
        ("try:\n    import no_such\nexcept Exception as error:\n    pass\n", ""),
        ("try:\n    import no_such\nexcept:\n    pass\n", ""),
        ("import typing\nif typing.TYPE_CHECKING:\n    import no_such\n", ""),
        ("import __main__, sys\n", ""),
        ("'import no_such'\n", ""),
        (
            "if a == 0: pass\n" + "".join(f"elif a == {n}: pass\n" for n in range(1200)) + "import no_such\n",
            "(line 1202)\n",
        ),
    ],
)
def test_the_first_module_that_is_not_there_is_told_with_its_line(
    source: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = undeclared_imports(source, "", "")
    assert (missing > 0) == (said != "")
    printed = capsys.readouterr().out
    assert printed.endswith(said) if said else not printed
