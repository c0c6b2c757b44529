"""A run in an object store that speaks S3's protocol: moto's server, on this machine.

The store in memory is tested in test_mirror.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

import kntrace
from conftest import TinySuite
from kntrace.archive import status
from kntrace.errors import KntraceError
from kntrace.progress import silent

pytestmark = pytest.mark.slow
URL = "s3://bucket/some/run"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An empty bucket."""
    started = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "KNTRACE_CACHE": str(tmp_path / "here"),
    }.items():
        monkeypatch.setenv(name, value)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    files.mkdir("bucket")
    yield files
    files.rm("bucket", recursive=True)  # the servers of one process share what is in them
    started.stop()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def stored(store: Any, folder: str) -> dict[str, bytes]:
    store.invalidate_cache()
    return {name.removeprefix(folder): store.cat_file(name) for name in store.find(folder)}


def test_a_run_in_a_bucket_is_the_run_in_a_folder(
    tiny_suite: TinySuite, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, suite = tiny_suite.study, tiny_suite.suite
    plain = kntrace.run(study, suite, tmp_path / "plain", threads=1, progress=silent)
    wanted = {
        "/" + file.relative_to(plain.path).as_posix(): file.read_bytes()
        for file in plain.path.rglob("*")
        if file.is_file() and file.name != "provenance.json"
    }

    def stopped(stage: str, done: int, total: int, detail: str = "") -> None:
        if stage == "sweep" and done == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kntrace.run(study, suite, URL, threads=1, progress=stopped)
    there = stored(store, "bucket/some/run")
    assert len([name for name in there if "/score/c." in name]) == 5
    # Gone on with on another machine, which has nothing but the bucket.
    monkeypatch.setenv("KNTRACE_CACHE", str(tmp_path / "there"))
    assert len(kntrace.open_run(URL).missing()) == 7
    begun: list[int] = []
    run = kntrace.run(
        study,
        suite,
        URL,
        threads=1,
        progress=lambda stage, done, total, detail="": stage == "sweep" and begun.append(done),
    )
    assert min(begun) == 5
    assert run.path.is_relative_to(tmp_path / "there")
    kept = stored(store, "bucket/some/run")
    assert {name: data for name, data in kept.items() if name != "/provenance.json"} == wanted
    # What is damaged or lost in the bucket is found by whoever fetches it.
    store.pipe_file("bucket/some/run/scores.zarr/score/c.0.1.0.0.0", b"torn")
    store.rm_file("bucket/some/run/scores.zarr/score/c.2.2.0.0.0")
    monkeypatch.setenv("KNTRACE_CACHE", str(tmp_path / "third"))
    seen = status(kntrace.open_run(URL))
    assert (seen.done, len(seen.damaged)) == (10, 1)
    kntrace.run(study, suite, URL, threads=1, progress=silent)
    again = stored(store, "bucket/some/run")
    assert {name: data for name, data in again.items() if name != "/provenance.json"} == wanted


def test_a_bucket_that_is_not_there_is_said_in_one_line(tiny_suite: TinySuite, store: Any) -> None:
    with pytest.raises(KntraceError, match="nobucket") as caught:
        kntrace.run(tiny_suite.study, tiny_suite.suite, "s3://nobucket/run", progress=silent)
    assert "\n" not in str(caught.value)
