"""Tables of cells in the forms that users have."""

import gzip

import pandas as pd
import pytest

from scbasset_ism.cells import read_cells
from scbasset_ism.errors import CheckpointError

IDS = ["007", "NA", "AAAC-1"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("cells.tsv", "cell_id\ttype\n007\tB\nNA\tT\nAAAC-1\tT\n", id="tsv"),
        pytest.param("cells.csv", "cell_id,type\n007,B\nNA,T\nAAAC-1,T\n", id="csv"),
        pytest.param("cells.tsv", "type\tbarcode\nB\t007\nT\tNA\nT\tAAAC-1\n", id="barcode-last"),
        pytest.param("cells.tsv", "\ttype\n007\tB\nNA\tT\nAAAC-1\tT\n", id="unnamed-index"),
        pytest.param("cells.tsv", "name\ttype\r\n007\tB\r\nNA\tT\r\nAAAC-1\tT\r\n", id="windows"),
        pytest.param("cells.tsv", '"id"\t"type"\n"007"\tB\n"NA"\tT\nAAAC-1\tT', id="quoted"),
    ],
)
def test_tables_with_a_header(tmp_path, name, text):
    (tmp_path / name).write_text(text, newline="")
    cells = read_cells(tmp_path / name, 3)
    expected = pd.DataFrame({"type": ["B", "T", "T"]}, index=pd.Index(IDS, name="cell_id"))
    pd.testing.assert_frame_equal(cells, expected)


@pytest.mark.parametrize("header", ["", "barcode\n", "cell_id\n", "Cells\n"])
def test_a_single_column_needs_no_header(tmp_path, header):
    path = tmp_path / "barcodes.tsv.gz"
    path.write_bytes(gzip.compress((header + "\n".join(IDS)).encode()))
    cells = read_cells(path, 3)
    assert list(cells.index) == IDS
    assert cells.index.name == "cell_id"
    assert cells.shape == (3, 0)


def test_numbers_are_numbers(tmp_path):
    (tmp_path / "cells.tsv").write_text("cell_id\tdepth\ttime\na\t1\t0.1\nb\t2\t\n")
    cells = read_cells(tmp_path / "cells.tsv", 2)
    assert cells["depth"].to_list() == [1, 2]
    assert cells["time"].isna().to_list() == [False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("cell_id\na\nb\n", "has 2 cells and the model 3", id="too-few"),
        pytest.param("a\nb\nc\nd\n", "has 4 cells and the model 3", id="too-many"),
        pytest.param("a\tB\nb\tB\nc\tT\n", "has 2 cells and the model 3", id="no-header"),
        pytest.param("cell_id\na\nb\na\n", "unique and not empty; 'a' is not", id="twice"),
        pytest.param("cell_id\tx\na\t1\n\t2\nb\t3\n", "not empty; '' is not", id="no-id"),
        pytest.param(
            "type\tx\na\tB\t1\nb\tB\t2\nc\tT\t3\n", "more columns than its header", id="r-style"
        ),
        pytest.param("id\tx\na\t1\nb\t1\t2\nc\t1\n", "can't be read as a table", id="ragged"),
        pytest.param("", "can't be read as a table", id="empty"),
        pytest.param("\x00\xff\xfe", "can't be read as a table", id="binary"),
    ],
)
def test_wrong_tables_say_what_is_wrong(tmp_path, text, message):
    (tmp_path / "cells.tsv").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message) as error:
        read_cells(tmp_path / "cells.tsv", 3)
    assert "\n" not in str(error.value)


def test_a_missing_table_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        read_cells(tmp_path / "cells.tsv", 3)
