"""Arrows point one way: flows → pipeline, flows → model, model → pipeline.shards. Only flows knows Prefect."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "model", "pipeline")
ALLOWED = {
    "flows": ("flows", "model", "pipeline"),
    "model": ("model", "pipeline.shards"),
    "pipeline": ("pipeline",),
}
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path):
    """Dotted names that a file imports anywhere, `from a import b` as both a and a.b."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                ".".join([*package[: len(package) - node.level + 1], node.module or ""]) if node.level else node.module
            )
            yield from (f"{base}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_import_goes_against_the_arrows(path):
    package = path.relative_to(ROOT).parts[0]
    allowed = ALLOWED[package]
    for name in imported(path):
        if name.split(".")[0] in PACKAGES:
            assert any(name == a or name.startswith(f"{a}.") for a in allowed), f"{path} imports {name}"
        if package != "flows":
            assert name.split(".")[0] != "prefect", f"{path} imports {name}"


def test_planning_imports_neither_prefect_nor_torch_nor_numba():
    code = "import sys, flows.cli; print([m for m in ('prefect', 'torch', 'numba', 'aiohttp') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
