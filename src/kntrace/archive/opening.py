"""How a run folder comes into being, is opened, and is opened to go on with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kntrace.archive import described, folder, layout
from kntrace.archive.frozen import read_copies, write_copies
from kntrace.archive.identity import refuse_changes, shortlist
from kntrace.archive.mirror import is_url, mirrored
from kntrace.archive.plain import refuse_links
from kntrace.archive.provenance import write_record
from kntrace.archive.runs import Run
from kntrace.archive.sessions import clear_killed
from kntrace.archive.variables import kept_coordinates
from kntrace.documents import nearest_path
from kntrace.errors import RunError
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Suite

__all__ = ["being_made", "create_run", "open_run", "resume_run"]


def create_run(
    path: str | Path,
    study: Study,
    suite: Suite,
    settings: Settings,
    *,
    layers: int,
    width: int,
) -> Run:
    """Make the run folder `path`, empty of scores.

    The folder becomes a run in one last step, so that a run killed while it is being made
    leaves something that the next call completes.

    Raises
    ------
    RunError
        If `path` is a run already, a file, or a folder with something else in it, or cannot
        be written.
    """
    sizes = layout.sizes(study, suite, layers, width)
    with being_made(path, study, suite, settings, sizes, {}):
        pass
    return open_run(path)


@contextmanager
def being_made(
    path: str | Path,
    study: Study,
    suite: Suite,
    settings: Settings,
    sizes: Mapping[str, int],
    record: Mapping[str, Any],
) -> Iterator[Path]:
    """Make the run folder `path`, and its archive of what is written meanwhile.

    Gives the folder in which the archive lies, empty of scores, until all of it is there. Where
    that comes to nothing, what was written is removed, and the next call begins anew.

    Raises
    ------
    RunError
        As `create_run`.
    """
    path = folder.usable(path)
    folder.claim_folder(path)
    if (path / folder.SCORES).exists():
        raise RunError("a run already", where=path, fix="Open it with kntrace.open_run.")
    folder.remove_leftovers(path)
    begun = path / folder.BEGUN
    described.refuse_large(path, sizes, settings)
    try:
        begun.mkdir()
        for name in (folder.ANALYSIS, folder.FIGURES):
            (path / name).mkdir(exist_ok=True)
        write_copies(path, study, suite, settings)
        write_record(path, record)
        layout.create_arrays(begun, study, suite, settings, sizes)
        try:
            yield begun
        except BaseException:
            # The folder stays what it is known by: one that was begun.
            shutil.rmtree(begun, ignore_errors=True)
            begun.mkdir(exist_ok=True)
            raise
        begun.rename(path / folder.SCORES)
    except OSError as error:
        raise folder.write_failure(path, error) from error


def open_run(path: str | Path) -> Run:
    """Open the run folder `path`, finished or not, or the run at a URL.

    Of a run at a URL it is the mirror on this machine that is opened, as it is at this moment;
    see `mirrored` for writing into it.

    Raises
    ------
    RunError
        If there is no run, if it cannot be read, or if the frozen copies of its study, suite
        or settings were changed since it was made.
    """
    with mirrored(path, send=False) as place:
        url, path = path, folder.usable(place)
    if is_url(url) and not (path / folder.SCORES).exists():
        raise RunError("there is no run", where=url, expected="what `kntrace run --out URL` made")
    _refuse_no_run(path)
    refuse_links(path, depth=2)
    scores = path / folder.SCORES
    attributes = described.read_attributes(scores)
    version = attributes["kntrace_format"]
    if version != layout.FORMAT:
        raise RunError(
            f"an archive of format {version}",
            where=scores,
            expected=f"format {layout.FORMAT}",
            fix="Use the version of kntrace that made it.",
        )
    layers, width, kept = described.read_shape(scores)
    study, suite, settings = read_copies(path, attributes)
    run = Run(path, study, suite, settings, layers=layers, width=width, kept=kept)
    described.refuse_large(path, run.sizes, settings)
    for name in kept_coordinates(settings):
        refuse_links(scores / name, depth=1)
    unlike = described.differing(scores, layout.descriptions(run.sizes, settings))
    if unlike or not layout.labelled_as(scores, study, suite, settings, run.sizes):
        raise RunError(
            "its variables and labels are not those of its study and suite"
            + (f" ({shortlist(unlike)})" if unlike else ""),
            where=path / folder.SCORES,
            fix="Bring the folder back from a copy, or remove it and run again.",
        )
    return run


def resume_run(
    path: str | Path, study: Study, suite: Suite, settings: Settings, *, alone: bool = True
) -> Run | None:
    """Open the run in `path` to go on with it; None if none was made there yet.

    What killed writers left behind is removed by the folder's only writer, see `writing`; give
    `alone=False` where there may be others.

    Raises
    ------
    RunError
        If the run was made from another study, suite or settings, saying what differs, or if
        `path` is something else than a run.
    """
    path = folder.usable(path)
    folder.refuse_foreign(path)
    if not (path / folder.SCORES).is_dir():
        return None
    if alone:
        folder.remove_leftovers(path)
        clear_killed(path)
    run = open_run(path)
    refuse_changes(path, (run.study, run.suite, run.settings), (study, suite, settings))
    return run


def _refuse_no_run(path: Path) -> None:
    if not path.exists():
        raise RunError(
            "no such folder", where=path, expected="a run folder", fix=nearest_path(path)
        )
    if path.is_dir() and (path / folder.SCORES).is_dir():
        return
    if (path / folder.BEGUN).is_dir():
        raise RunError(
            "this run was stopped while it was being made",
            where=path,
            fix="Give the same command again.",
        )
    kind = "a folder without scores.zarr" if path.is_dir() else "a file"
    raise RunError(kind, where=path, expected="a run folder, as `kntrace run` makes it")
