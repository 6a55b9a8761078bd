"""Imports point down, each library has its home, and the command line starts light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "scbasset_ism"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")

# From the top down; a module imports from rows below its own, or from its own row.
ROWS = [
    {"cli"},
    {"demo"},
    {"cli_export", "cli_groups", "cli_stores", "cli_train", "cli_windows"},
    {"cli_options"},
    {"report"},
    {"report_traits"},
    {"figures"},
    {"training"},
    {"training_state"},
    {"examples"},
    {"evaluation"},
    {"scoring", "prediction", "saturation", "attributing", "verification", "merging"},
    {"runs", "stretches", "window_rescoring", "exporting", "normalizing"},
    {"export_annotations", "export_vcf", "rescoring"},
    {"export_tables"},
    {"columns", "outputs"},
    {"device", "provenance", "alleles"},
    {"accessibility", "recipe"},
    {"finemap_tables"},
    {"finemapping"},
    {"groups", "orientation"},
    {"calibration"},
    {"saturations", "attributions"},
    {"window_store"},
    {"coordinates", "pipeline", "reader", "windows", "checkpoint", "encoder"},
    {"vcf", "self_check", "store", "finishing", "folder", "keras", "attribution", "views"},
    {"metrics", "plot", "splits"},
    {"controls", "credible", "tables"},
    {"weights", "cells", "regions", "progress", "workers", "delta"},
    {"genome", "reference_pass", "variants", "frames", "locks", "spans"},
    {"model", "agreement", "shuffles"},
    {"bases", "places", "streams", "contributions"},
    {"errors"},
]
HOMES = {
    "anndata": {"accessibility", "coordinates"},
    "captum": {"attribution"},
    "click": {
        "cli",
        *("cli_export", "cli_groups", "cli_options", "cli_stores", "cli_train", "cli_windows"),
    },
    "fcntl": {"locks"},
    "fsspec": {"places"},
    "h5py": {"keras", "coordinates"},
    "jinja2": {"report"},
    "huggingface_hub": {"checkpoint"},
    "logomaker": {"plot"},
    "matplotlib": {"figures", "plot", "report"},
    "pyarrow": {"export_tables", "tables", "vcf"},
    "pysam": {"credible", "export_vcf", "genome", "outputs", "vcf"},
    "safetensors": {"checkpoint", "folder", "training_state", "weights"},
    "scipy": {"accessibility", "metrics", "evaluation"},
    "sklearn": {"metrics"},
    "tqdm": {"pipeline"},
    "google_crc32c": {"frames"},
    "numcodecs": {"frames"},
    "zarr": {"encoder", "finishing", "frames"},
}


def imports(module: str) -> set[str]:
    """Full names of all that a module imports, also inside functions."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "scbasset_ism":
            names |= {f"scbasset_ism.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def row(module: str) -> int:
    return next(i for i, modules in enumerate(ROWS) if module in modules)


def test_every_module_has_a_row() -> None:
    assert sorted(module for modules in ROWS for module in modules) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    ours = {
        name.removeprefix("scbasset_ism.") for name in imports(module) if "scbasset_ism." in name
    }
    assert not [other for other in ours & set(MODULES) if row(other) < row(module)]


@pytest.mark.parametrize("library", HOMES)
def test_libraries_have_one_home(library: str) -> None:
    users = {m for m in MODULES if any(n.split(".")[0] == library for n in imports(m))}
    assert users <= HOMES[library]


def loaded_after(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after some code."""
    script = f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


HEAVY = {"torch", "zarr", "numpy", "pandas", "pysam", "h5py", "tqdm", "safetensors"}


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import scbasset_ism.cli", HEAVY),
        ("import scbasset_ism", HEAVY),
        ("import scbasset_ism.reader", {"torch", "pysam"}),
        ("import scbasset_ism; scbasset_ism.open_scores", {"torch", "pysam"}),
        ("import scbasset_ism; scbasset_ism.open_saturations", {"torch", "pysam"}),
        ("import scbasset_ism; scbasset_ism.open_attributions", {"torch", "pysam", "captum"}),
        ("import scbasset_ism.vcf", {"torch", "zarr"}),
        ("import scbasset_ism; scbasset_ism.export", {"torch", "tqdm"}),
    ],
    ids=[
        "cli",
        "package",
        "reader",
        "open_scores",
        "open_saturations",
        "open_attributions",
        "vcf",
        "export",
    ],
)
def test_heavy_imports_wait(code: str, absent: set[str]) -> None:
    assert not loaded_after(code) & absent


def test_heavy_imports_would_be_seen() -> None:
    assert "torch" in loaded_after("import scbasset_ism.model")
