"""The layers of the design hold: imports point down, and each third-party import stands where it is listed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lezea_mlops"

ZERO = {"errors", "_lazy", "_clock", "_files", "_bounded", "_process"}
TWO = {"journal", "sinks", "capture", "evolution", "accounting", "insight"}
BELOW_FIVE = ZERO | TWO | {"events", "config", "delivery", "tracker", "runtime"}

# A name stands for itself and all below it.
MAY_IMPORT: dict[str, set[str]] = {
    **{name: {"errors", "_process"} for name in ZERO},
    "events": ZERO,
    "config": ZERO,
    "journal": ZERO | {"events"},
    "capture": ZERO | {"events"},
    "evolution": ZERO | {"events"},
    "accounting": ZERO | {"events"},
    "insight": ZERO | {"events"},
    "sinks": ZERO | {"events", "journal"},
    "delivery": ZERO | {"events", "journal", "sinks.base"},
    "runtime": ZERO | TWO | {"events", "config", "delivery"},
    "tracker": ZERO | TWO | {"events", "config", "delivery", "runtime"},
    "reports": BELOW_FIVE,
    "testing": BELOW_FIVE,
    "servers": ZERO | {"config"},
    "cli": BELOW_FIVE | {"testing", "servers", "reports"},
    "__init__": {"tracker", "runtime"},
}

# Every import of another project, by file; those inside functions are listed too.
THIRD_PARTY: dict[str, set[str]] = {
    "capture/gpu.py": {"pynvml"},
    "capture/own_usage.py": {"psutil"},
    "capture/gpu_usage.py": {"pynvml"},
    "capture/host.py": {"psutil"},
    "capture/host_usage.py": {"psutil"},
    "capture/process_usage.py": {"psutil"},
    "cli/app.py": {"typer"},
    "cli/audit.py": {"typer", "rich"},
    "cli/costs.py": {"typer"},
    "cli/down.py": {"typer", "rich"},
    "cli/gc.py": {"typer", "rich"},
    "cli/genealogies.py": {"typer"},
    "cli/lineage.py": {"typer"},
    "cli/paper.py": {"typer", "rich"},
    "cli/runs.py": {"typer", "rich"},
    "cli/status.py": {"typer", "rich"},
    "cli/sync.py": {"typer", "rich"},
    "cli/tree.py": {"typer"},
    "cli/up.py": {"typer", "rich"},
    "config/rates.py": {"omegaconf", "yaml"},
    "events/base.py": {"typing_extensions"},  # for type checkers only
    "events/codec.py": {"msgspec"},
    "servers/process.py": {"psutil"},
    "servers/replica_set.py": {"pymongo"},
    "servers/remembered.py": {"psutil"},
    "servers/server.py": {"psutil"},
    "sinks/mongodb/audit_piece.py": {"bson"},
    "sinks/mongodb/connection.py": {"bson", "pymongo"},
    "sinks/mongodb/delivery.py": {"pymongo"},
    "sinks/mongodb/experiment.py": {"bson"},
    "sinks/mongodb/large.py": {"bson", "gridfs"},
    "sinks/mongodb/modifications.py": {"bson", "pymongo"},
    "sinks/mongodb/values.py": {"bson"},
    "sinks/mongodb/writing.py": {"bson", "pymongo"},
    "sinks/mlflow/connection.py": {"mlflow", "sqlalchemy"},
    "sinks/mlflow/runs.py": {"mlflow"},
    "sinks/mlflow/sending.py": {"mlflow"},
    "sinks/mlflow/sink.py": {"mlflow"},
    "sinks/prometheus/families.py": {"prometheus_client"},
    "sinks/prometheus/rendering.py": {"prometheus_client"},
    "sinks/prometheus/view.py": {"prometheus_client"},  # for type checkers only
}

# A module named in a text is invisible here; only these may import so.
MAY_IMPORT_BY_NAME = {"__init__.py", "_lazy.py"}

FILES = sorted(PACKAGE.rglob("*.py"))


def imports_of(file: Path) -> set[str]:
    """Return the modules that *file* imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            assert node.module != "lezea_mlops", (
                f"{file}:{node.lineno}: import the module, not from the package"
            )
            found.add(str(node.module))
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def layer_of(file: Path) -> str:
    """Return the package or module of the top level that *file* belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down(file: Path) -> None:
    """A file imports its own layer and those it may import, nothing else."""
    layer = layer_of(file)
    allowed = MAY_IMPORT[layer] | {layer}
    for name in imports_of(file):
        if name.startswith("lezea_mlops."):
            inner = name.removeprefix("lezea_mlops.")
            assert any(inner == a or inner.startswith(a + ".") for a in allowed), f"{layer} imports {inner}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_third_party_imports_stand_where_they_are_listed(file: Path) -> None:
    """A file imports of other projects exactly what the list says of it."""
    roots = {name.partition(".")[0] for name in imports_of(file)}
    foreign = roots - set(sys.stdlib_module_names) - {"lezea_mlops"}
    assert foreign == THIRD_PARTY.get(str(file.relative_to(PACKAGE)), set())


def test_delivery_names_no_concrete_sink() -> None:
    """Nothing in ``delivery`` says the name of a destination."""
    for file in (PACKAGE / "delivery").glob("*.py"):
        text = file.read_text().lower()
        assert not [name for name in ("mlflow", "mongo", "prometheus") if name in text], file


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modules_are_imported_by_name_in_two_places_only(file: Path) -> None:
    """``import_module`` would hide an import from the tests above."""
    if str(file.relative_to(PACKAGE)) not in MAY_IMPORT_BY_NAME:
        assert "import_module" not in file.read_text()


@pytest.mark.parametrize("module", ["lezea_mlops", "lezea_mlops.events", "lezea_mlops.journal"])
def test_needs_the_standard_library_alone(module: str) -> None:
    """It imports where no site-packages are."""
    subprocess.run([sys.executable, "-S", "-c", f"import {module}"], cwd=ROOT, check=True)


@pytest.mark.parametrize("code", ["import lezea_mlops", "from lezea_mlops.journal import read_run"])
def test_reading_never_imports_a_backend(code: str) -> None:
    """Neither the package nor reading a journal loads MLflow, MongoDB's driver or numpy."""
    heavy = "{'mlflow', 'pymongo', 'numpy', 'pandas', 'prometheus_client'}"
    program = f"import sys; {code}; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_the_public_names_are_those_that_are_written_down() -> None:
    """``__all__``, what can be reached, and what ``dir`` shows agree."""
    import lezea_mlops

    assert dir(lezea_mlops) == sorted(lezea_mlops.__all__)
    for name in lezea_mlops.__all__:
        assert getattr(lezea_mlops, name) is not None


def test_functions_stay_small_and_files_readable() -> None:
    """No file has more than 400 lines but the facade, whose length is its docstrings; no function more than 60."""
    for file in FILES:
        lines = file.read_text().count("\n")
        assert lines <= 400 or file.name == "tracker.py", f"{file}: {lines} lines"
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                start = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.lineno
                assert (node.end_lineno or 0) - start < 60, f"{file}:{node.lineno} {node.name}"
