"""How far a session has come: what it tells the user, and what it writes into the run's record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kntrace.archive import Run, Session, open_run
from kntrace.progress import Progress
from kntrace.settings import Settings
from kntrace.sweep.plan import Plan

__all__ = ["Tally"]


class Tally:
    """Counts blocks as they are committed, by this process or by others.

    Attributes
    ----------
    count, total
        Blocks that are done, those of former sessions included, of how many; of a shard, if
        there is one.
    session
        What goes into the run's record.
    run
        The run, once there is one.
    tell
        Told in one sentence what is out of the ordinary.
    """

    def __init__(
        self,
        path: Path,
        plan: Plan,
        session: Session,
        settings: Settings,
        report: Progress,
        tell: Callable[[str], None],
        run: Run | None,
    ) -> None:
        self.count, self.total = plan.done, plan.total
        self.session = session
        self.run = run
        self.tell = tell
        self._path = path
        self._settings = settings
        self._report = report
        self._shown = 0
        session.damaged = list(plan.damaged)
        self.at("")

    def at(self, says: str, ahead: int = 0) -> None:
        """Show what is in hand; `ahead` blocks are done that were not counted yet."""
        self._shown = max(self._shown, min(self.count + ahead, self.total))
        self._report("sweep", self._shown, self.total, says)

    def ready(self, run: Run | None, threads: int, seconds: float) -> None:
        """A checkpoint was loaded; there is a run from now on."""
        del seconds
        self.session.threads = threads
        if self.run is None:
            self.run = open_run(self._path) if run is None else run

    def done(self, says: str, blocks: int = 1) -> None:
        """Count blocks that were committed."""
        self.count += blocks
        self.session.blocks += blocks
        self.at(says)
        if self.session.due:
            self.record()

    def record(self, *, quietly: bool = False) -> None:
        """Save what the session has done; `quietly` where another error is on its way."""
        if self.run is None or not self.session.blocks:
            return

        def entries(record: dict[str, Any]) -> dict[str, Any]:
            return self.session.entries(record, self._settings)

        try:
            self.run.update_provenance(entries)
        except Exception:
            if not quietly:
                raise
