"""A Dask cluster whose workers are Slurm jobs, by the options in a file."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, StrictInt

from kntrace.documents import DataPath, Entries, one_name, read_document, validate
from kntrace.errors import KntraceError, SettingsError

__all__ = ["SlurmOptions", "read_slurm", "slurm_cluster", "start_slurm"]

_Count = Annotated[StrictInt, Field(ge=1, le=10_000)]
# They stand in lines of a job's script, one each.
_Line = Annotated[str, Field(strict=True, max_length=1000), AfterValidator(one_name)]
_Lines = Annotated[tuple[_Line, ...], Field(max_length=100)]


class SlurmOptions(Entries):
    """What the file says: options of `dask_jobqueue.SLURMCluster`, and how many jobs.

    Attributes
    ----------
    jobs
        How many jobs are asked for.
    queue, account, walltime
        The partition, who pays, and how long a job may take (`04:00:00`).
    cores, processes, memory
        Processors, Dask workers and memory (`16GB`) of a job. A worker loads one checkpoint at a
        time and computes with its share of the processors.
    job_extra_directives
        Further lines of `#SBATCH`, such as `--gres=gpu:1`.
    job_script_prologue
        Lines of shell before the worker starts, such as `source venv/bin/activate`.
    interface
        Network interface by which workers and scheduler find each other.
    python
        The Python on the nodes; by default this one.
    local_directory, log_directory
        Where workers keep what they spill, and where Slurm writes what they say.
    job_cpu, job_mem
        What Slurm is asked for, where it is not `cores` and `memory`.
    shebang
        The first line of the script.
    worker_extra_args
        Further options of `dask worker`, such as `["--lifetime", "3h"]`.
    death_timeout
        Seconds that a worker waits for the scheduler.
    nanny
        Whether a worker that died is started again within its job.
    """

    jobs: _Count
    cores: _Count
    memory: _Line
    processes: _Count = 1
    queue: _Line | None = None
    account: _Line | None = None
    walltime: _Line | None = None
    job_cpu: _Count | None = None
    job_mem: _Line | None = None
    job_extra_directives: _Lines = ()
    job_script_prologue: _Lines = ()
    worker_extra_args: _Lines = ()
    interface: _Line | None = None
    python: _Line | None = None
    shebang: _Line | None = None
    local_directory: _Line | None = None
    log_directory: _Line | None = None
    death_timeout: _Count = 300
    nanny: StrictBool = True

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `SLURMCluster`."""
        given = self.model_dump(exclude={"jobs"}, exclude_none=True)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in given.items()
        }


def read_slurm(path: str | Path) -> SlurmOptions:
    """Read a file of options, YAML or JSON.

    Raises
    ------
    SettingsError
        If it cannot be read, or says something else; with the line.
    """
    document = read_document(path, SettingsError, what="a file of options for Slurm")
    return validate(SlurmOptions, document, SettingsError, _described)


def _described(path: DataPath) -> tuple[str, str]:
    name = str(path[0]) if path else ""
    field = SlurmOptions.model_fields.get(name)
    kind = "" if field is None else str(field.annotation)
    if "int" in kind:
        return name, "a whole number of at least 1"
    if "bool" in kind:
        return name, "true or false"
    if "tuple" in kind:
        return (name if len(path) == 1 else f"line {path[1]} of {name}"), "a list of texts"
    return name or "the file", "a text" if name else "options, such as `jobs: 4`"


def slurm_cluster(options: SlurmOptions) -> Any:
    """Make a `SLURMCluster`, with no jobs yet.

    Raises
    ------
    SettingsError
        If the package is not installed.
    """
    try:
        import dask
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise SettingsError(
            "the package dask-jobqueue is not installed",
            expected="it, for Slurm",
            fix="pip install 'kntrace[cluster]'",
        ) from None
    # A job that reaches its time limit takes its worker with it: no fault of the task.
    with dask.config.set({"distributed.scheduler.allowed-failures": 100}):
        return SLURMCluster(**options.arguments())


def start_slurm(options: SlurmOptions, stack: ExitStack) -> Any:
    """Start a scheduler in this process, and ask Slurm for workers.

    Raises
    ------
    KntraceError
        If Slurm cannot be asked.
    """
    if shutil.which("sbatch") is None:
        raise KntraceError(
            "there is no sbatch here",
            expected="a machine of a Slurm cluster, from which jobs are submitted",
        )
    try:
        cluster = stack.enter_context(slurm_cluster(options))
        cluster.scale(jobs=options.jobs)
    except (OSError, RuntimeError, ValueError) as error:
        raise KntraceError(
            f"Slurm cannot be asked for workers: {' '.join(str(error).split())[:300]}",
            fix="Is sbatch to be had here, and are the options right?",
        ) from None
    return cluster
