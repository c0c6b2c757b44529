"""Compute an ablation, checkpoint by checkpoint, and keep each as soon as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kntrace.archive import Run, writing
from kntrace.attribution import Engine
from kntrace.causal.plan import Plan, make_plan
from kntrace.causal.rows import Asked, rows_of, singles_of
from kntrace.causal.sets import Rankings, rankings_of
from kntrace.effects import Ablation, begin, commit, load_ablation, write_summaries
from kntrace.errors import ModelError
from kntrace.models.scored import load_scored
from kntrace.progress import Bars, Progress
from kntrace.selection import read_selection
from kntrace.suite import Checkpoint, Suite
from kntrace.suite.schedules import Steps
from kntrace.threads import torch_threads
from kntrace.wording import read_wording

__all__ = ["ablate"]

_Floats = npt.NDArray[np.float32]

_STAGE = "ablate"
# The answer's probability must come out as it did when the scores were computed; what may
# differ is how devices and batches round.
_SAME = {"bfloat16": 0.05, "float16": 0.02, "tf32": 0.01}
_SAME_EXACT = 1e-3


def ablate(
    run: Run,
    *,
    steps: Steps = None,
    select: str | None = None,
    doses: Sequence[int] | None = None,
    methods: Sequence[str] = ("zero", "x0.5", "x1.5", "x2", "mean", "resample"),
    chosen_at: str = "last",
    partners: int = 4,
    draws: int = 4,
    singles: int = 50,
    positions: str = "last",
    wording: str | None = None,
    seed: int = 0,
    anew: bool = False,
    suite: Suite | None = None,
    device: str = "cpu",
    threads: int | None = None,
    tell: Callable[[str], object] | None = None,
    progress: Progress | None = None,
) -> Ablation:
    """Change neurons jointly and see what becomes of the answers.

    While a word is asked for, its own strongest neurons are changed together; then, in their
    stead, as many of words of the same group, of words of other groups, random ones matched by
    layer and by size of activation, and plain random ones.

    Parameters
    ----------
    run
        A finished run, whose checkpoints can still be loaded.
    steps
        Which checkpoints, as `load_suite` takes them; the last one unless given.
    select
        Which neurons are a word's own: `top:K`, or `threshold:T:MIN[:FLOOR]` (score at least T
        times the prompt's largest, in at least MIN prompts). As many as the largest dose unless
        given.
    doses
        Numbers of neurons changed together: 1, 2, 5, 10, ... up to one in twenty unless given;
        for a threshold, all of them (0).
    methods, chosen_at, partners, draws, singles, positions, seed
        See `kntrace.effects.AblationSettings`.
    wording
        The prompts to use; the study's first wording unless given.
    anew
        Throw away what was computed with other settings.
    suite
        The run's suite, if its checkpoints were moved.
    device, threads
        Where, and with how many processor threads; changes no number beyond rounding.
    tell
        Called with one line that says what will be computed.
    progress
        Told of the words done, in the stage `ablate`; by default a bar.

    Returns
    -------
    Ablation
        Of all checkpoints that were computed with these settings, now or before.

    Raises
    ------
    RunError
        If the run is not finished, if a checkpoint's weights are not those that were scored, or
        if results with other settings are there.
    ModelError
        If the answers' probabilities are not those of the run.
    SettingsError, AnalysisError, SuiteError
        If an argument is out of range, or a checkpoint is not there.
    KeyboardInterrupt
        On Ctrl-C, saying what is done.

    Notes
    -----
    Writes `RUN/causal`: two parquet tables a checkpoint, `ablation.json` with the settings,
    and summaries as csv. A call that is killed loses at most the checkpoint in hand, and the
    same call goes on.

    Cost: for each prompt (sources x doses x methods) passes, of one token from the lowest
    changed layer upward where the engine replays, else (`positions="all"`, masked models) of
    the whole prompt. Held against plain hooks, one at a time, in `tests/test_joint.py`.
    """
    run.require_complete()
    others = {
        "methods": tuple(methods),
        "chosen_at": chosen_at,
        "partners": partners,
        "draws": draws,
        "singles": singles,
        "positions": positions,
        "seed": seed,
    }
    plan = make_plan(run, suite, steps, select, doses, wording, others)
    with ExitStack() as stack:
        report = stack.enter_context(Bars()) if progress is None else progress
        stack.enter_context(writing(run.path))
        stack.enter_context(torch_threads(threads))
        work = _Work(run, plan, device, report, anew)
        if tell is not None:
            tell(plan.describe(run, len(work.left)))
        work.finish()
    found = load_ablation(run)
    write_summaries(found)
    return found


class _Work:
    """One session: what is left to do, and how far it has come."""

    def __init__(self, run: Run, plan: Plan, device: str, report: Progress, anew: bool) -> None:
        self.run, self.plan, self.device, self.report = run, plan, device, report
        self.settings = plan.settings
        self.scores = run.scores
        self.view = read_wording(self.scores, self.settings.wording)
        names = self.scores["wording"].values
        self.columns = np.flatnonzero(names == self.settings.wording)
        self.recorded = begin(run, self.settings, anew=anew)
        self.left = {
            place: item
            for place, item in plan.checkpoints.items()
            if item.label not in self.recorded.checkpoints
        }
        self.words = len(run.study.words)
        self.done = 0

    def finish(self) -> None:
        """Compute all that is left."""
        try:
            for place, checkpoint in self.left.items():
                self._checkpoint(place, checkpoint)
        except KeyboardInterrupt:
            kept = len(self.plan.checkpoints) - len(self.left) + self.done // self.words
            raise KeyboardInterrupt(
                f"Stopped with {kept} of {len(self.plan.checkpoints)} checkpoints done. "
                "Give the same command again to go on from there."
            ) from None

    def _say(self, detail: str) -> None:
        self.report(_STAGE, self.done, self.words * len(self.left), detail)

    def _checkpoint(self, place: int, checkpoint: Checkpoint) -> None:
        self._say(f"loading {checkpoint.label}")
        started = time.perf_counter()
        loaded = load_scored(self.run, place, checkpoint, device=self.device)
        settings = self.run.settings
        with Engine(loaded.model, loaded.tokenizer, settings) as engine:
            one = _OneCheckpoint(self, place, engine)
            parts, singles = [], []
            for word in range(self.words):
                self._say(self.run.describe(place, word))
                table, alone = one.word(word)
                parts.append(table)
                singles.append(alone)
                self.done += 1
            how = {
                "seconds": round(time.perf_counter() - started, 1),
                "device": self.device,
                "replay": engine.replay,
                "torch": torch.__version__,
            }
        table, alone = (pd.concat(some, ignore_index=True) for some in (parts, singles))
        self.recorded = commit(self.run, self.recorded, place, _compact(table), alone, how)
        self._say(checkpoint.label)


class _OneCheckpoint:
    """The words of one checkpoint, with all of its prompts read."""

    def __init__(self, work: _Work, place: int, engine: Engine) -> None:
        self.work, self.place, self.engine = work, place, engine
        self.settings = work.settings
        self.study = work.run.study
        self.asked = [self._read(word) for word in range(work.words)]
        selection = read_selection(self.settings.select)
        at = -1 if self.settings.chosen_at == "last" else place
        chosen = selection.choose(work.scores, wording=self.settings.wording, checkpoint=at)
        self.rankings: Rankings = rankings_of(chosen)
        # Sums in double precision, so that the mean does not hang on the order of the prompts.
        whole = np.stack([one.activation for some in self.asked for one in some])
        self.mean: _Floats = whole.mean(axis=0, dtype=np.float64).astype(np.float32)

    def word(self, word: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Everything about one word: a row per pass, and its neurons one at a time."""
        asked, name = self.asked[word], self.study.words[word].text
        size = np.abs(np.stack([one.activation for one in asked])).mean(axis=0, dtype=np.float64)
        sources = self.rankings.sources(word, size, self.settings)
        elsewhere = self._others(word)
        parts = [
            rows_of(
                self.engine,
                one,
                sources,
                self.settings,
                {"mean": self.mean, "resample": self._resampled(word, one.prompt)},
                elsewhere,
            )
            for one in asked
        ]
        table = pd.concat(parts, ignore_index=True)
        self._check(word, table)
        table.insert(0, "word", name)
        singles = self._singles(word)
        singles.insert(0, "word", name)
        return table, singles

    def _read(self, word: int) -> list[Asked]:
        entry = self.study.words[word]
        prompts = self.study.rendered(entry)
        found = []
        for column in self.work.columns:
            if (text := prompts[column]) is None:
                continue
            encoded = self.engine.encode(
                text, entry.answer, self.study.answer_form, entry.alternatives
            )
            activation = self.engine.mean_activation([encoded]).ravel()
            found.append(Asked(int(column), encoded, activation))
        return found

    def _others(self, word: int) -> tuple[list[int], list[int]]:
        """First tokens of the answers of other words of the group, and of other groups."""
        first = [some[0].encoded.answer[0] for some in self.asked]
        group = [entry.group for entry in self.study.words]
        same = {first[u] for u in range(len(first)) if group[u] == group[word]} - {first[word]}
        rest = {first[u] for u in range(len(first)) if group[u] != group[word]}
        return sorted(same), sorted(rest - same - {first[word]})

    def _resampled(self, word: int, prompt: int) -> _Floats:
        if self.work.words < 2:
            return self.mean
        donor, at = self.rankings.donor(word, prompt, self.settings)
        there = self.asked[donor]
        return there[int(at * len(there))].activation

    def _singles(self, word: int) -> pd.DataFrame:
        # Random ones may be among those that the run has not kept: they have no score then.
        mean = self.work.view.known(self.place, word).ravel()
        parts = []
        for kind, neurons in self.rankings.singles(word, self.settings).items():
            everywhere = self.settings.positions == "all"
            lost = [
                singles_of(self.engine, one, neurons, everywhere=everywhere)
                for one in (self.asked[word] if len(neurons) else ())
            ]
            layer, neuron = np.divmod(neurons, self.engine.width)
            empty = np.empty(0)
            parts.append(
                pd.DataFrame(
                    {
                        "kind": kind,
                        "layer": layer,
                        "neuron": neuron,
                        "score": mean[neurons],
                        "probability_lost": np.mean([p for p, _ in lost], 0) if lost else empty,
                        "log_odds_lost": np.mean([odds for _, odds in lost], 0) if lost else empty,
                    }
                )
            )
        return pd.concat(parts, ignore_index=True)

    def _check(self, word: int, table: pd.DataFrame) -> None:
        """The model must answer as it did when the scores were computed."""
        now = table.drop_duplicates("prompt").set_index("prompt")["probability_before"]
        then = self.work.scores["probability"].isel(checkpoint=self.place, word=word).values
        off = np.abs(now.to_numpy() - then[now.index.to_numpy()])
        if not off.max() <= _SAME.get(self.work.run.settings.dtype, _SAME_EXACT):
            worst = int(off.argmax())
            raise ModelError(
                f"P(answer) is {now.iloc[worst]:.6f}, and was "
                f"{then[now.index[worst]]:.6f} when the scores were computed",
                where=self.work.run.describe(self.place, word),
                expected="the same configuration and tokenizer",
                fix="Bring the former files of the checkpoint back.",
            )


def _compact(table: pd.DataFrame) -> pd.DataFrame:
    """Types that keep the file small."""
    small = dict.fromkeys(("neurons", "shared", "dose", "rank", "rank_before", "draw"), np.int32)
    text = dict.fromkeys(("word", "source", "of", "method"), "category")
    return table.astype({**small, **text, "size": np.float32})
