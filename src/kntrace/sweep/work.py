"""Which blocks to compute, and that all of one run come from the same inputs.

What a block is computed from lies in `block`, which knows nothing of archive or suite.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kntrace.archive import (
    Block,
    Run,
    Session,
    create_run,
    resume_run,
    source_config,
    source_state,
    write_print,
    writing,
)
from kntrace.errors import ModelError, RunError, SuiteError
from kntrace.progress import Bars, Progress
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Suite
from kntrace.sweep.baselines import given_baseline
from kntrace.sweep.block import compute_block
from kntrace.sweep.fetching import Access, Fetching, fetching
from kntrace.sweep.loading import Ready, made_ready
from kntrace.threads import torch_threads

if TYPE_CHECKING:
    from kntrace.attribution import Engine

__all__ = ["run"]


def run(
    study: Study,
    suite: Suite,
    out: str | Path,
    *,
    settings: Settings | None = None,
    baseline: ArrayLike | str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
    verify: bool = True,
    evict: bool = False,
    allow_bin: bool = False,
    pin: bool = False,
    tell: Callable[[str], None] | None = None,
    sync: bool = False,
    memory: int | None = None,
) -> Run:
    """Score every neuron of every checkpoint of `suite` for every word of `study`.

    Give the same call again after an interruption: finished blocks are checked and kept, the
    others computed, and the scores end up bit for bit those of an uninterrupted run on the
    same machine. Of a run that is killed, at most the block in hand is lost.

    Parameters
    ----------
    study, suite
        From `load_study` and `load_suite`.
    out
        The run folder; made if it is not there.
    settings
        What is computed; by default `Settings()`. Frozen in the run folder, like the study
        and the suite.
    baseline
        Where the paths start, (layer, neuron) or the path of an `.npy` file, in place of what
        the settings say; kept with the run.
    device
        A torch device, on which the models run.
    threads
        Processor threads for torch; by default as many as torch takes.
    progress
        Told how far the work has come, in the stages `verify` (blocks read) and `sweep`
        (blocks done, those of former sessions included); by default a bar.
    verify
        On resuming, read all finished blocks and compute damaged ones again. Without it,
        only missing ones are computed.
    evict
        Delete each checkpoint from the cache of the hub after use, if it was this run that
        fetched it. What was there before stays, and so does what other revisions share.
    allow_bin
        Read weights that are there only as pickles (`pytorch_model.bin`): their tensors, and
        no programs.
    pin
        Where a branch has moved since the run began, go on with the commit that it meant.
    tell
        Told in a sentence, before anything is fetched, what will be.
    sync
        Force every block to the disk before the next is begun, so that it outlives a loss of
        power. Without it the last seconds before one may have to be computed again.
    memory
        Bytes of the device that one pass of the engine may take beside the weights; 2 GiB, or
        a quarter of a CUDA card, unless given. Another amount may change the last digits.

    Returns
    -------
    Run
        The opened run, all of its blocks done.

    Raises
    ------
    RunError
        If `out` holds a run of another study, suite, settings or weights (the message says
        what differs), is being written by another process, is something else than a run, or
        cannot be written.
    ModelError
        If a prompt or answer does not fit the tokenizer (found before anything is scored),
        if checkpoints differ in shape or tokenizer, or if a score is not a finite number.
    SuiteError, SettingsError
        If a checkpoint cannot be loaded or a setting cannot be met. What lies on the hub is
        looked at before anything is fetched: access, formats, and room on the disk.
    HubError
        If the hub cannot be reached.
    KeyboardInterrupt
        On Ctrl-C, saying what is done and how to go on.

    Notes
    -----
    Cost: each checkpoint with unfinished blocks is loaded once; see `Engine.attribute_many`
    for the time a prompt takes. While one is computed, the next is fetched from the hub.
    """
    path = Path(out)
    access = Access(evict, allow_bin, pin, tell or (lambda _: None))
    with ExitStack() as stack:
        report = stack.enter_context(Bars()) if progress is None else progress
        wanted, vector = given_baseline(settings or Settings(), baseline)
        stack.enter_context(writing(path))
        opened = resume_run(path, study, suite, wanted)
        sweep = _Sweep(
            path, study, suite, wanted, vector, device, report, opened, access, sync, memory
        )
        stack.enter_context(torch_threads(threads))
        return sweep.finish(verify)


class _Sweep:
    """One session of a run: what it needs, and how far it has come."""

    def __init__(
        self,
        path: Path,
        study: Study,
        suite: Suite,
        settings: Settings,
        baseline: NDArray[np.float32] | None,
        device: str,
        report: Progress,
        opened: Run | None,
        access: Access,
        sync: bool,
        memory: int | None,
    ) -> None:
        self.path = path
        self.sync = sync
        self.memory = memory
        self.settings = settings
        self.baseline = baseline
        self.device = device
        self.report = report
        self.opened = opened
        self.access = access
        self.fetched: Fetching
        # A resumed run keeps the order of its own words and checkpoints; the checkpoints lie
        # where the caller says, since a suite may have been moved.
        self.study = study if opened is None else opened.study
        labels = (suite if opened is None else opened.suite).checkpoints
        given = {checkpoint.label: checkpoint for checkpoint in suite.checkpoints}
        self.checkpoints = [given[checkpoint.label] for checkpoint in labels]
        self.suite = suite
        self.total = len(self.checkpoints) * len(self.study.words)
        self.done = 0
        self.session = Session(device)

    def finish(self, verify: bool) -> Run:
        """Compute all that is not done."""
        plan = self._plan(verify)
        self.suite.check_present([self.checkpoints[place].label for place in plan])
        self.done = self.total - sum(map(len, plan.values()))
        self.report("sweep", self.done, self.total)
        try:
            with fetching(
                self.path, self.checkpoints, list(plan), self.opened, self.access
            ) as self.fetched:
                for checkpoint, words in plan.items():
                    self._score(checkpoint, words)
        except KeyboardInterrupt:
            self._record(quietly=True)
            done = 0 if self.opened is None else self.total - len(self.opened.missing())
            raise KeyboardInterrupt(
                f"Stopped with {done} of {self.total} blocks done in {self.path}. "
                "Give the same command again to go on from there."
            ) from None
        except BaseException:
            self._record(quietly=True)
            raise
        self._record()
        if self.opened is None:
            raise SuiteError("no checkpoints", where=self.suite.name, expected="at least one")
        return self.opened

    def _plan(self, verify: bool) -> dict[int, list[int]]:
        """List for each checkpoint that must be loaded the words to score, maybe none."""
        if self.opened is None:
            every = list(range(len(self.study.words)))
            return {place: every.copy() for place in range(len(self.checkpoints))}
        blocks = set(self.opened.missing())
        damaged = self.opened.damaged(self.report) if verify else self.opened.unproven()
        self.session.damaged = [self.opened.describe(*pair) for pair in damaged]
        blocks.update(damaged)
        plan: dict[int, list[int]] = {place: [] for place in self._suspects(self.opened)}
        for place, word in sorted(blocks):
            plan.setdefault(place, []).append(word)
        return dict(sorted(plan.items()))

    def _suspects(self, opened: Run) -> list[int]:
        """List the checkpoints whose files are not those that were read, to look at again."""
        known = opened.provenance.get("checkpoints", {})
        return [
            place
            for place, item in enumerate(self.checkpoints)
            if source_state(item) not in (None, known.get(item.label, {}).get("files"))
        ]

    def _score(self, place: int, words: list[int]) -> None:
        """Load one checkpoint, make sure that it belongs to this run, and score `words`."""
        checkpoint = self.fetched.turn(
            self.checkpoints[place], lambda says: self.report("sweep", self.done, self.total, says)
        )
        self.report("sweep", self.done, self.total, f"loading {checkpoint.label}")
        with made_ready(
            checkpoint,
            self.study,
            self.settings,
            self.device,
            allow_bin=self.access.allow_bin,
            memory=self.memory,
        ) as ready:
            self.session.threads = _threads_in_use()
            run = self._admit(place, ready)
            self._start_paths(place, run, ready)
            for word in words:
                self.report("sweep", self.done, self.total, run.describe(place, word))
                run.write_block(place, word, self._block(run, ready.engine, place, word))
                self.done += 1
                self.session.blocks += 1
                self.report("sweep", self.done, self.total, run.describe(place, word))
                if self.session.due:
                    self._record()
        self.fetched.done(self.checkpoints[place])
        self._record()

    def _block(self, run: Run, engine: Engine, place: int, word: int) -> Block:
        asked = self.study.words[word]
        prompts = self.study.rendered(asked)
        try:
            block = compute_block(
                engine, prompts, asked.answer, self.study.answer_form, asked.alternatives
            )
        except ModelError as error:
            where = f"{run.describe(place, word)}: {error.where or ''}".rstrip(": ")
            raise ModelError(
                error.found, where=where, expected=error.expected, fix=error.fix
            ) from error
        return block

    def _start_paths(self, place: int, run: Run, ready: Ready) -> None:
        """Tell the engine where paths start, and keep it where that is not at nothing."""
        if self.settings.baseline == "zero":
            return
        # Measured again it might differ in its last bit from what finished blocks started at.
        try:
            baseline = run.baseline(place)
        except RunError:  # damaged; the blocks that hung on it are computed again
            baseline = None
        if baseline is None:
            given = self.baseline
            baseline = ready.engine.mean_activation(ready.encoded) if given is None else given
            run.write_baseline(place, baseline)
        ready.engine.baseline = baseline

    def _admit(self, place: int, ready: Ready) -> Run:
        """Check a loaded checkpoint against the run, which the first one brings into being."""
        checkpoint, loaded, engine, tokens = (
            self.checkpoints[place],
            ready.loaded,
            ready.engine,
            ready.tokens,
        )
        if self.opened is None:
            self.opened = create_run(
                self.path,
                self.study,
                self.suite,
                self.settings,
                layers=engine.layers,
                width=engine.width,
            )
        run = self.opened
        if self.sync:
            run.sync()
        record = run.provenance
        if record.get("tokens", tokens) != tokens:
            raise ModelError(
                "its tokenizer reads the study's prompts otherwise than the run's other "
                "checkpoints do",
                where=f"checkpoint {checkpoint.label}",
                fix="Give all checkpoints of the suite the same tokenizer.",
            )
        seen, config = record.get("checkpoints", {}), source_config(checkpoint)
        if seen.get(checkpoint.label, {}).get("config", config) != config:
            raise RunError(
                f"the configuration of {checkpoint.label!r} has changed since its blocks were "
                "computed",
                where=self.path,
                fix="Bring the former config.json back, or give another --out for a new run.",
            )
        loaded.check_architecture(record.get("architecture"))
        run.write_fingerprint(place, loaded.fingerprint)
        write_print(run, loaded.printed(place))
        seen |= {
            checkpoint.label: {
                "source": checkpoint.source,
                "revision": checkpoint.revision,
                "commit": loaded.commit,
                "fingerprint": loaded.fingerprint,
                "config": config,
                "files": source_state(checkpoint),
                "replay": engine.replay,
            }
            | ({} if ready.rounding is None else {"rounding": ready.rounding})
        }
        run.update_provenance(
            {
                "tokens": tokens,
                "answers": ready.answers,
                "architecture": loaded.architecture,
                "commits": self.fetched.commits,
                "checkpoints": seen,
            }
        )
        return run

    def _record(self, *, quietly: bool = False) -> None:
        """Save what this session has done so far; `quietly` where another error is on its way."""
        run = self.opened
        if run is None or not self.session.blocks:
            return
        try:
            run.update_provenance(self.session.entries(run.provenance, self.settings))
        except Exception:
            if not quietly:
                raise


def _threads_in_use() -> int:
    import torch

    return torch.get_num_threads()
