"""Tables come back as they were written, whole or not at all."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from scbasset_ism.errors import ScbassetError
from scbasset_ism.tables import write_table

BLOCKS = [
    pd.DataFrame({"name": ["a", "b"], "x": [0.5, None]}),
    pd.DataFrame({"name": ["c"], "x": [1.25]}),
]
WHOLE = pd.concat(BLOCKS, ignore_index=True)
TEXT = "name\tx\na\t0.5\nb\t\nc\t1.25\n"


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz", "t.parquet", "new/folder/t.txt"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_table(BLOCKS, path)
    if path.suffix == ".parquet":
        found = pd.read_parquet(path)
    else:
        found = pd.read_csv(path, sep="\t")
        raw = path.read_bytes()
        assert (gzip.decompress(raw) if path.suffix == ".gz" else raw) == TEXT.encode()
    pd.testing.assert_frame_equal(found, WHOLE)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(BLOCKS, "-")
    assert capsys.readouterr().out == TEXT


@pytest.mark.parametrize("name", ["t.tsv", "t.tsv.gz", "t.parquet"])
def test_a_failure_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    def fail() -> Iterator[pd.DataFrame]:
        yield BLOCKS[0]
        raise RuntimeError

    (tmp_path / name).write_text("old")
    with pytest.raises(RuntimeError):
        write_table(fail(), tmp_path / name)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScbassetError, match=r"file/t\.tsv can't be written: "):
        write_table(BLOCKS, tmp_path / "file" / "t.tsv")
