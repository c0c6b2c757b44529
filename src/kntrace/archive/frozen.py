"""The frozen copies of what a run was made from, which name the run and travel with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kntrace.archive import folder
from kntrace.documents import read_text
from kntrace.errors import KntraceError, RunError, SettingsError
from kntrace.settings import Settings
from kntrace.study import Study, load_study
from kntrace.suite import Suite
from kntrace.suite.files import load_listed

__all__ = ["read_copies", "write_copies"]


def write_copies(path: Path, study: Study, suite: Suite, settings: Settings) -> None:
    """Write study, suite and settings into the run folder `path`."""
    folder.write_text(path / folder.STUDY, study.to_yaml())
    folder.write_text(path / folder.SUITE, _suite_copy(path, suite))
    folder.write_text(path / folder.SETTINGS, settings.to_yaml())


def _suite_copy(path: Path, suite: Suite) -> str:
    """Write the suite down; relative to the run if the two lie together, to be moved together."""
    here = path.absolute()
    folders = [Path(item.source) for item in suite if item.revision is None]
    together = all(place.is_relative_to(here.parent) for place in folders)
    return suite.to_yaml(relative_to=here if together else None)


def read_copies(path: Path, attributes: Mapping[str, Any]) -> tuple[Study, Suite, Settings]:
    """Read what the run was made from, and check it against the archive's own record."""
    try:
        study = load_study(path / folder.STUDY)
        suite = load_listed(path / folder.SUITE)
        settings = Settings.from_yaml(
            read_text(path / folder.SETTINGS, SettingsError, what="the settings of a run")
        )
    except KntraceError as error:
        raise RunError(f"a frozen copy cannot be read: {error}", where=path) from error
    for name, digest in (
        ("study", study.digest),
        ("suite", suite.digest),
        ("settings", settings.digest),
    ):
        if attributes.get(name) != digest:
            raise RunError(
                "changed since the run was made, so that the scores are not what it says",
                where=path / f"{name}.yaml",
                fix="Bring the former file back, or remove the folder and run again.",
            )
    return study, suite, settings
