"""The checkpoints of a finished run, found and loaded again, and proved to be those scored."""

from __future__ import annotations

from kntrace.archive import Run, shortlist
from kntrace.errors import RunError
from kntrace.models.load import LoadedCheckpoint, load_checkpoint
from kntrace.suite import Checkpoint, Suite
from kntrace.suite.schedules import Schedule, Steps, read_steps, select

__all__ = ["checkpoints_of", "load_scored"]


def checkpoints_of(
    run: Run, suite: Suite | None = None, steps: Steps = None
) -> dict[int, Checkpoint]:
    """Find the checkpoints asked for, by their position in the run's suite.

    Parameters
    ----------
    suite
        The run's suite where it is now, if it was moved.
    steps
        Which ones, as `load_suite` takes them; the last one unless given.

    Raises
    ------
    RunError
        If `suite` is not the run's.
    SuiteError
        If there is no such step, or if a checkpoint is not there.
    """
    if suite is not None and suite.digest != run.suite.digest:
        raise RunError(
            f"the run was made from another suite: {shortlist(run.suite.differences(suite))}",
            where=run.path,
            fix="Give the suite of the run, wherever it is now.",
        )
    there = {item.label: item for item in (run.suite if suite is None else suite)}
    wanted = run.suite.checkpoints[-1:]
    if steps is not None:
        schedule: Schedule = read_steps(steps)
        wanted = select(run.suite.name, run.suite.checkpoints, schedule, fix="Choose among these.")
    labels = {item.label for item in wanted}
    found = {
        place: there[item.label] for place, item in enumerate(run.suite) if item.label in labels
    }
    (run.suite if suite is None else suite).check_present(labels)
    return found


def load_scored(
    run: Run, place: int, checkpoint: Checkpoint, *, device: str = "cpu"
) -> LoadedCheckpoint:
    """Load a checkpoint as it was scored.

    Parameters
    ----------
    place
        Its position in the run's suite.
    checkpoint
        Where its weights are now.

    Raises
    ------
    RunError
        If the weights are not those that were scored.
    SuiteError, SettingsError
        See `load_checkpoint`.
    """
    settings = run.settings
    loaded = load_checkpoint(checkpoint, device=device, dtype=settings.dtype)
    recorded = run.fingerprint(place)
    if loaded.fingerprint != recorded:
        raise RunError(
            f"the weights of {checkpoint.label!r} are not those that were scored "
            f"(fingerprint {str(recorded)[:12]}, now {loaded.fingerprint[:12]})",
            where=checkpoint.place,
            fix="Bring the former weights back, or say with --suite (suite=) where they are.",
        )
    if settings.dtype not in ("float32", "float64"):
        loaded.round_to(settings.dtype)
    return loaded
