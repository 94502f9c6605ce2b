"""Rules of the layout: who imports whom, what is named how, what may not be written down."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from emissary.settings import PROJECT_ROOT, Settings

FLOWS = sorted(path for path in (PROJECT_ROOT / "flows").glob("*.py") if path.stem != "__init__")
WRITTEN = {".py", ".toml", ".yaml", ".yml", ".md", ".lock", ".txt", ".cfg", ".ini", ".sh", ".mako"}
# Taken apart, so that this file does not name one itself.
INDEX = re.compile("|".join(("index[-_]u" + "rl", "find[-_]l" + "inks", r"pypi\.o" + "rg", "python" + "hosted")), re.I)


def imported(folder: str) -> Iterator[tuple[Path, str]]:
    """(file, module) of every import statement below `folder`, also those inside functions."""
    for path in sorted((PROJECT_ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: a relative import"
                yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("emissary/api", ("flows", "tasks", "torch", "transformers")),
        ("emissary/store", ("prefect",)),
        ("flows", ("emissary.api",)),
        ("tasks", ("emissary.api",)),
    ],
)
def test_layer_imports_nothing_that_it_must_not(folder: str, forbidden: tuple[str, ...]) -> None:
    found = list(imported(folder))
    assert found
    broken = [
        f"{path.relative_to(PROJECT_ROOT)}: {module}"
        for path, module in found
        if any(f"{module}.".startswith(f"{name}.") for name in forbidden)
    ]
    assert not broken


def test_api_process_loads_no_flow_task_or_torch() -> None:
    code = "import sys, emissary.api.app as api; api.create_app(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert not {"flows", "tasks", "torch", "transformers"} & set(done.stdout.split())


def test_store_loads_no_prefect() -> None:
    modules = [f"emissary.store.{path.stem}" for path in (PROJECT_ROOT / "emissary/store").glob("[a-z]*.py")]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert "prefect" not in done.stdout.split()


@pytest.mark.parametrize("folder", ["flows", "tasks"])
def test_no_file_shadows_a_library(folder: str) -> None:
    stems = {path.stem for path in (PROJECT_ROOT / folder).glob("*.py")} - {"__init__"}
    assert stems
    assert not stems & (set(packages_distributions()) | sys.stdlib_module_names)


def test_readme_mentions_every_setting() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    names = [f"EMISSARY_{name.upper()}" for name in Settings.model_fields]
    assert not [name for name in names if not re.search(rf"\b{name}\b", readme)]


def test_every_flow_is_deployed_under_its_own_name() -> None:
    content = yaml.safe_load((PROJECT_ROOT / "deployments.yaml").read_text(encoding="utf-8"))
    entrypoints = {entry["name"]: entry["entrypoint"] for entry in content["deployments"]}
    assert entrypoints == {path.stem: f"flows.{path.stem}.{path.stem}" for path in FLOWS}


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_file_of_a_flow_defines_one_flow_of_its_name(path: Path) -> None:
    functions = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    flows = {
        function.name: ast.literal_eval(keyword.value)
        for function in functions
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "flow"
        for keyword in decorator.keywords
        if keyword.arg == "name"
    }
    assert flows == {path.stem: path.stem}


def test_lock_pins_every_package_by_version_alone() -> None:
    lines = (PROJECT_ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    assert wanted
    assert not [line for line in wanted if not re.fullmatch(r"[A-Za-z0-9._-]+(\[[\w,-]+\])?==\S+( *;.*)?", line)]
    assert not [line for line in lines if "://" in line]


def test_no_file_names_a_package_index() -> None:
    tops = [path for path in PROJECT_ROOT.iterdir() if path.name == ".ci" or not path.name.startswith(".")]
    files = [file for top in tops for file in ([top] if top.is_file() else top.rglob("*"))]
    naming = [
        str(file.relative_to(PROJECT_ROOT))
        for file in files
        if file.is_file()
        and (file.suffix in WRITTEN or file.name in ("Makefile", "run"))
        and INDEX.search(file.read_text(encoding="utf-8"))
    ]
    assert not naming
