"""Looks for imports that fail, in the source of a testing function and where it will run.

This is a testing function itself: it is read as text and called in the sandbox, with the other's dependencies.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator

_CATCHING = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}


def undeclared_imports(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """How many modules the Python source `input_text` imports that there are not, in functions too; prints the first
    of them and its line. Those of a `try` that catches ImportError do not count, nor those under TYPE_CHECKING.
    """
    missing = sorted((line, name) for name, line in _imports(ast.parse(input_text)) if not _is_there(name))
    if missing:
        line, name = missing[0]
        print(f"No module named {name!r} (line {line})")  # noqa: T201 - it comes with the score
    return float(len(missing))


def _imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The modules that must be there, without those below them, each with its line."""
    waiting = [tree]  # not by recursion, for a long chain of `elif` is as deep
    while waiting:
        node = waiting.pop()
        match node:
            case ast.Import():
                yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
            case ast.ImportFrom(module=str(name), level=0):
                yield name.partition(".")[0], node.lineno
            case ast.Try() if any(map(_catches, node.handlers)):
                continue
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
                continue
        waiting.extend(ast.iter_child_nodes(node))


def _catches(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    return any(isinstance(node, ast.Name) and node.id in _CATCHING for node in ast.walk(handler.type))


def _is_there(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None
