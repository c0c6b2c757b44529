"""A session of a run: what lacks is planned, computed in some way, and recorded.

What a block is computed from lies in `block`, which knows nothing of archive or suite; that all
of a run come from the same inputs is the business of `admission`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from numpy.typing import ArrayLike

from kntrace.archive import (
    Run,
    Session,
    clear_killed,
    mirrored,
    resume_run,
    sharing,
    url_of,
    writing,
)
from kntrace.archive.folder import CHANGING, remove_leftovers
from kntrace.errors import SettingsError, SuiteError
from kntrace.progress import Bars, Progress
from kntrace.settings import Settings
from kntrace.study import Study
from kntrace.suite import Suite
from kntrace.sweep.admission import Job
from kntrace.sweep.baselines import given_baseline
from kntrace.sweep.cluster import Cluster
from kntrace.sweep.fetching import Access, Fetching, agreed_commits, fetching
from kntrace.sweep.plan import Plan, Shard, plan_blocks
from kntrace.sweep.processes import Workers, threads_for
from kntrace.sweep.scoring import score
from kntrace.sweep.slurm import read_slurm, start_slurm
from kntrace.sweep.tally import Tally
from kntrace.threads import torch_threads

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
    workers: int = 1,
    shard: str | None = None,
    scheduler: str | None = None,
    slurm: str | Path | None = None,
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
        The run folder; made if it is not there. Or the URL of one: see `kntrace.mirrored`.
    settings
        What is computed; by default `Settings()`. Frozen in the run folder, like the study
        and the suite.
    baseline
        Where the paths start, (layer, neuron) or the path of an `.npy` file, in place of what
        the settings say; kept with the run.
    device
        A torch device, on which the models run.
    threads
        Processor threads for torch, in each worker; by default as many as torch takes, or the
        processors shared out among the workers.
    workers
        Processes that compute at a time, each with a model of its own; 1: this one. With the
        device `cuda` they are dealt the GPUs where there are several. The scores do not depend
        on it: with the same `threads` they are the same bit for bit. In a script, call this
        under `if __name__ == "__main__":` if there are several.
    shard
        Only the checkpoints of one of several equal parts, `2/8` being the second of eight.
        All parts may be computed at once, on any machines that see the folder; any may be given
        again, and a run without it does whatever still lacks.
    scheduler
        Address of a Dask scheduler (`tcp://host:8786`) whose workers compute; they have to see
        the folder of the run, the checkpoints, and this version of kntrace.
    slurm
        A file of options with which Slurm is asked for jobs that compute.
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
        Told in a sentence, before anything is fetched, what will be; and of each worker that dies.
    sync
        Force every block to the disk before the next is begun, so that it outlives a loss of
        power. Without it the last seconds before one may have to be computed again.
    memory
        Bytes of the device that one pass of the engine may take beside the weights, in each
        worker; 2 GiB, or a quarter of a CUDA card, unless given. Another amount may change the
        last digits.

    Returns
    -------
    Run
        The opened run, all of its blocks done (or all of the shard's).

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
    if workers < 1:
        raise SettingsError(f"{workers} workers", expected="at least 1")
    if workers > 1 and device == "auto":
        raise SettingsError(
            f"device auto and {workers} workers",
            expected="one of the two: a model that is spread over all there is leaves no room "
            "for another",
        )
    part = _read_shard(shard, suite, evict=evict)
    machine = _Machine(device, threads, workers, scheduler, slurm)
    machine.check(shard=part is not None, evict=evict)
    access = Access(evict, allow_bin, pin, tell or (lambda _: None))
    with ExitStack() as stack:
        path = stack.enter_context(mirrored(out, tell))
        if (url := url_of(path)) is not None and (part is not None or machine.elsewhere):
            raise SettingsError(
                f"a run at {url} that several machines work on",
                expected="a folder that all of them see: each would have a mirror of its own",
            )
        report = stack.enter_context(Bars()) if progress is None else progress
        wanted, vector = given_baseline(_of_all_neurons(settings or Settings()), baseline)
        stack.enter_context(writing(path) if part is None else sharing(path))
        opened = resume_run(path, study, suite, wanted, alone=part is None)
        job = Job.of(
            opened,
            path,
            study,
            suite,
            settings=wanted,
            baseline=vector,
            allow_bin=allow_bin,
            sync=sync,
            memory=memory,
        )
        sweep = _Sweep(job, opened, machine, part, access, report)
        return sweep.finish(verify)


def _of_all_neurons(settings: Settings) -> Settings:
    if settings.top is not None:
        raise SettingsError(
            f"top = {settings.top}: a sweep cannot know which neurons later checkpoints choose",
            expected="all neurons (top None)",
            fix="Make a run with keep means, and then a smaller one of it with `kntrace compact`.",
        )
    return settings


def _read_shard(shard: str | None, suite: Suite, *, evict: bool) -> Shard | None:
    if shard is None:
        return None
    part = Shard.read(shard)
    if part.of > len(suite):
        raise SettingsError(
            f"{part.of} shards of {len(suite)} checkpoints",
            expected="no more shards than checkpoints, which are dealt out whole",
        )
    if evict:
        raise SettingsError(
            "evict and a shard",
            expected="one of the two: shards may share the hub's cache, and none knows what "
            "another still needs",
        )
    return part


@dataclass(frozen=True)
class _Machine:
    """What is computed on."""

    device: str
    threads: int | None
    workers: int
    scheduler: str | None = None
    slurm: str | Path | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether others compute, on machines that need not be this one."""
        return self.scheduler is not None or self.slurm is not None

    def check(self, *, shard: bool, evict: bool) -> None:
        """Raise `SettingsError` if these cannot go together."""
        others = {
            "a scheduler": self.scheduler is not None,
            "slurm": self.slurm is not None,
            "workers": self.workers > 1,
            "a shard": shard,
            "evict": evict,
        }
        given = [name for name, is_given in others.items() if is_given]
        if self.elsewhere and len(given) > 1:
            raise SettingsError(
                f"{' and '.join(given)}",
                expected="one of them: a scheduler deals the checkpoints out itself, to workers "
                "that have caches of their own",
            )

    def cluster(self) -> Cluster:
        """Who computes elsewhere."""
        if self.slurm is None:
            return Cluster(self.scheduler)
        options = read_slurm(self.slurm)
        return Cluster(started=lambda stack: start_slurm(options, stack))


class _Sweep:
    """One session of a run: what it needs, and how far it has come."""

    def __init__(
        self,
        job: Job,
        opened: Run | None,
        machine: _Machine,
        shard: Shard | None,
        access: Access,
        report: Progress,
    ) -> None:
        self.job = job
        self.opened = opened
        self.machine = machine
        self.shard = shard
        self.access = access
        self.report = report

    def finish(self, verify: bool) -> Run:
        """Compute all that is not done."""
        job, machine = self.job, self.machine
        checkpoints, words = job.suite.checkpoints, len(job.study.words)
        plan = plan_blocks(
            checkpoints, words, self.opened, verify=verify, shard=self.shard, progress=self.report
        )
        job.suite.check_present([checkpoints[place].label for place in plan.blocks])
        session = Session(machine.device)
        session.workers = machine.workers
        session.shard = None if self.shard is None else str(self.shard)
        tally = Tally(
            job.path, plan, session, job.settings, self.report, self.access.tell, self.opened
        )
        try:
            self._compute(plan, tally)
        except KeyboardInterrupt:
            tally.record(quietly=True)
            raise KeyboardInterrupt(self._stopped(tally)) from None
        except BaseException:
            tally.record(quietly=True)
            raise
        tally.record()
        if tally.run is None:
            raise SuiteError("no checkpoints", where=job.suite.name, expected="at least one")
        return tally.run

    def _stopped(self, tally: Tally) -> str:
        lacking = [] if tally.run is None else tally.run.missing()
        mine = [pair for pair in lacking if self.shard is None or self.shard.takes(pair[0])]
        done = 0 if tally.run is None else tally.total - len(mine)
        whole = "" if self.shard is None else f" of shard {self.shard}"
        return (
            f"Stopped with {done} of {tally.total} blocks{whole} done in {self.job.path}. "
            "Give the same command again to go on from there."
        )

    def _compute(self, plan: Plan, tally: Tally) -> None:
        if self.machine.elsewhere and plan.blocks:
            self._compute_elsewhere(plan, tally)
            return
        workers = min(self.machine.workers, max(sum(map(len, plan.blocks.values())), 1))
        threads = threads_for(workers, self.machine.threads)
        with ExitStack() as stack:
            processes = None
            if workers > 1:
                if self.shard is None:
                    stack.callback(self._tidy)
                processes = Workers(workers, self.machine.device, threads, self.shard)
                stack.enter_context(processes)
            fetched = stack.enter_context(
                fetching(
                    self.job.path,
                    self.job.suite.checkpoints,
                    list(plan.blocks),
                    self.opened,
                    self.access,
                    workers=workers,
                )
            )
            job = replace(self.job, commits=fetched.commits)
            if processes is not None:
                processes.score(job, plan.blocks, fetched, tally)
            else:
                stack.enter_context(torch_threads(threads))
                self._compute_here(job, plan, fetched, tally)

    def _tidy(self) -> None:
        """Remove what killed workers left, once none is there that could be writing."""
        remove_leftovers(self.job.path)
        clear_killed(self.job.path)
        with suppress(OSError):
            (self.job.path / CHANGING).unlink()

    def _compute_elsewhere(self, plan: Plan, tally: Tally) -> None:
        job, machine = self.job, self.machine
        record = {} if self.opened is None else self.opened.provenance
        commits = agreed_commits(job.path, job.suite.checkpoints, record, pin=self.access.pin)
        with machine.cluster() as cluster:
            cluster.score(
                replace(job, commits=commits),
                plan.blocks,
                tally,
                device=machine.device,
                threads=machine.threads,
            )
        self._tidy()

    def _compute_here(self, job: Job, plan: Plan, fetched: Fetching, tally: Tally) -> None:
        device = self.machine.device
        who = "run" if self.shard is None else f"shard {self.shard}"
        for place, words in plan.blocks.items():
            given = job.suite.checkpoints[place]
            checkpoint = fetched.turn(given, tally.at)
            tally.run = score(job, place, checkpoint, words, device, tally, who=who, run=tally.run)
            fetched.done(given)
            tally.record()
