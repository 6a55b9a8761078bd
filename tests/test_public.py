"""The public names exist, are sorted, and are typed alike."""

import ast
from pathlib import Path

import pytest

import scbasset_ism


def test_all_is_sorted_and_complete() -> None:
    assert scbasset_ism.__all__ == sorted(scbasset_ism.__all__)
    stub = ast.parse(Path(scbasset_ism.__file__).with_suffix(".pyi").read_text())
    typed = [
        alias.asname
        for node in ast.walk(stub)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert sorted(map(str, typed)) == scbasset_ism.__all__


@pytest.mark.parametrize("name", scbasset_ism.__all__)
def test_names_exist_and_are_documented(name: str) -> None:
    assert getattr(scbasset_ism, name).__doc__
    assert name in dir(scbasset_ism)


def test_other_names_do_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        scbasset_ism.scores  # noqa: B018
