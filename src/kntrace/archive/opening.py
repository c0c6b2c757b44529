"""How a run folder comes into being, is opened, and is opened to go on with it."""

from __future__ import annotations

from pathlib import Path

from kntrace.archive import folder, layout
from kntrace.archive.frozen import read_copies, write_copies
from kntrace.archive.identity import refuse_changes
from kntrace.archive.provenance import write_record
from kntrace.archive.runs import Run
from kntrace.errors import RunError
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Suite

__all__ = ["create_run", "open_run", "resume_run"]


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
    path = folder.usable(path)
    folder.claim_folder(path)
    if (path / folder.SCORES).exists():
        raise RunError("a run already", where=path, fix="Open it with kntrace.open_run.")
    folder.remove_leftovers(path)
    begun = path / folder.BEGUN
    try:
        begun.mkdir()
        for name in (folder.ANALYSIS, folder.FIGURES):
            (path / name).mkdir(exist_ok=True)
        write_copies(path, study, suite, settings)
        write_record(path, {})
        sizes = layout.sizes(study, suite, layers, width)
        layout.create_arrays(begun, study, suite, settings, sizes)
        begun.rename(path / folder.SCORES)
    except OSError as error:
        raise folder.write_failure(path, error) from error
    return open_run(path)


def open_run(path: str | Path) -> Run:
    """Open the run folder `path`, finished or not.

    Raises
    ------
    RunError
        If there is no run, if it cannot be read, or if the frozen copies of its study, suite
        or settings were changed since it was made.
    """
    path = folder.usable(path)
    _refuse_no_run(path)
    try:
        dataset = layout.open_dataset(path / folder.SCORES)
        found = {str(dim): size for dim, size in dataset.sizes.items()}
        version, layers, width = dataset.attrs["kntrace_format"], found["layer"], found["neuron"]
    except Exception as error:
        # Damaged metadata can fail anywhere inside zarr and xarray, with any error.
        raise RunError(
            f"the archive's description cannot be read ({type(error).__name__}: {error})",
            where=path / folder.SCORES,
            fix="Bring the folder back from a copy, or remove it and run again.",
        ) from error
    if version != layout.FORMAT:
        raise RunError(
            f"an archive of format {version}",
            where=path / folder.SCORES,
            expected=f"format {layout.FORMAT}",
            fix="Use the version of kntrace that made it.",
        )
    study, suite, settings = read_copies(path, dataset.attrs)
    run = Run(path, study, suite, settings, layers=layers, width=width)
    labelled = layout.labelled_as(dataset, study, suite, settings, run.sizes)
    if found != run.sizes or not labelled:
        raise RunError(
            "its variables and labels are not those of its study and suite",
            where=path / folder.SCORES,
            fix="Bring the folder back from a copy, or remove it and run again.",
        )
    return run


def resume_run(path: str | Path, study: Study, suite: Suite, settings: Settings) -> Run | None:
    """Open the run in `path` to go on with it; None if none was made there yet.

    To be called by the folder's only writer, see `writing`: what killed writers left behind
    is removed.

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
    folder.remove_leftovers(path)
    run = open_run(path)
    refuse_changes(path, (run.study, run.suite, run.settings), (study, suite, settings))
    return run


def _refuse_no_run(path: Path) -> None:
    if not path.exists():
        raise RunError("no such folder", where=path, expected="a run folder")
    if path.is_dir() and (path / folder.SCORES).is_dir():
        return
    if (path / folder.BEGUN).is_dir():
        raise RunError(
            "this run was stopped while it was being made",
            where=path,
            fix="Give the same `kntrace run` again.",
        )
    kind = "a folder without scores.zarr" if path.is_dir() else "a file"
    raise RunError(kind, where=path, expected="a run folder, as `kntrace run` makes it")
