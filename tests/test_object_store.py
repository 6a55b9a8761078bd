"""The same protocol on S3, spoken with a server on this machine; needs s3fs and moto[server]."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_job import Fake, contents
from fake_job import write as write_fake
from test_merging import sizes  # noqa: F401
from test_runs import part, stop_after

from scbasset_ism.errors import StoreError
from scbasset_ism.merging import merge
from scbasset_ism.places import place_of
from scbasset_ism.reader import open_scores
from scbasset_ism.runs import finalize
from scbasset_ism.verification import verify_files

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs", reason="needs s3fs")
pytest.importorskip("moto.server", reason="needs moto[server]")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a server that ends with the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    known = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(known)
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        fsspec.filesystem("s3").mkdir("scores")
        yield "s3://scores"
    finally:
        server.kill()
        server.wait()
        os.environ.clear()
        os.environ.update(before)


def test_write_resume_read_verify_merge(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, fake = f"{bucket}/s.zarr", Fake(n_rows=60)
    write_fake(tmp_path / "want.zarr", fake)
    want = contents(tmp_path / "want.zarr")
    stop_after(2, monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        part(url, "1/2", fake)
    with pytest.raises(StoreError, match="unfinished"):
        open_scores(url)
    with pytest.raises(StoreError, match="weights was sha0 and is sha1"):
        part(url, "2/2", Fake(n_rows=60, weights=1))
    part(url, "2/2", fake)
    place = place_of(url)
    place.remove("X/c/5/0")
    with pytest.raises(StoreError, match="shards 2-3, 5 of 8 are missing"):
        finalize(url)
    part(url, "1/1", fake)
    finalize(url)
    assert {name: place.read(name) for name in place.sizes()} == want
    assert not place_of(f"{url}.progress").exists()
    scores, local = open_scores(url), open_scores(tmp_path / "want.zarr")
    assert scores.cell(3).equals(local.cell(3))
    assert scores.rows().equals(local.rows())
    assert verify_files(scores).problems == []
    with pytest.raises(StoreError, match="exists"):
        write_fake(url, fake)
    write_fake(f"{bucket}/t.zarr", Fake(n_rows=8, first=60), workers=2)
    merged = merge([url, f"{bucket}/t.zarr"], f"{bucket}/m.zarr")
    write_fake(tmp_path / "both.zarr", Fake(n_rows=68))
    assert merged.cell(3).equals(open_scores(tmp_path / "both.zarr").cell(3))
    assert verify_files(merged).problems == []
    place.write("X/c/5/0", want["X/c/4/0"][:-1] + b"x")
    assert len(verify_files(open_scores(url)).problems) == 1
    write_fake(url, Fake(n_rows=60, seed=1), overwrite=True)
    assert not open_scores(url).cell(3).equals(local.cell(3))
