"""The manual is true: its Python runs, its commands and options exist, and all are in it."""

import re
import shlex
from pathlib import Path

import click
import pytest

from scbasset_ism import cli, demo
from scbasset_ism.variants import Status

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
SHELL = [text for language, text in BLOCKS if language == "sh"]
COMMANDS = cli.main.commands


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo.copy_inputs(Path("scbasset-ism-demo"))
    assert PYTHON
    for code in PYTHON:
        exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "scores.zarr").exists()


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("line", re.findall(r"^scbasset-ism .*", "\n".join(SHELL), re.MULTILINE))
def test_the_commands_of_the_readme_exist(line: str) -> None:
    _, name, *words = shlex.split(line)
    known = options_of(COMMANDS[name])
    assert {word for word in words if word.startswith("-")} <= known


def test_every_option_in_the_readme_exists() -> None:
    known = set[str]().union(*(options_of(command) for command in COMMANDS.values()))
    known |= {"--help", "--group"}  # of pip
    known |= {"--rounds", "--rows", "--dense-rows", "--folder"}  # of the benchmarks
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README)) <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme_and_every_option_has_help(name: str) -> None:
    assert f"`scbasset-ism {name} " in README
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("status", Status)
def test_every_status_is_in_the_readme(status: Status) -> None:
    assert f"| `{status.name}` |" in README
