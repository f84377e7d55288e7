"""A training run around the loop: where it starts, what is recorded, saved and evaluated, and how it ends."""
from __future__ import annotations

import contextlib
import difflib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.data.contract import Dataset
from saccade.data.domain_pairs import DomainPairs
from saccade.data.loading import Loader, deaths_of_workers
from saccade.engine import checkpoints
from saccade.engine.checkpoints import ModelCard
from saccade.engine.evaluation import EvaluationStoppedError, Observer, PredictionCollector, evaluate, write_results
from saccade.engine.files import write_json
from saccade.engine.launch import (
    Together,
    failures_of_others,
    random_state,
    seed_everything,
    set_random_state,
    undisturbed_randomness,
    whole_tensors,
)
from saccade.engine.loggers import Logger
from saccade.engine.loop import Callback, Plan, StopAskedError, run_steps
from saccade.engine.resuming import Conditions, check_conditions
from saccade.engine.run_folder import Records, RunFolder
from saccade.engine.selection import selection_note
from saccade.engine.settings import RunSettings
from saccade.engine.signals import Interrupted, StopRequests
from saccade.errors import InputError, StorageError
from saccade.learning.contract import Learner
from saccade.learning.gradients import NotFiniteError
from saccade.metrics.contract import Metric
from saccade.recipes import Recipe
from saccade.structures import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from saccade.engine.progress import TrainingProgress

# Makes the further observers of an evaluation: called with the data set's name, the data set, the folder for results and the model's classes.
ObserverFactory = Callable[[str, Dataset, Path, Sequence[str]], Sequence[Observer]]

_log = logging.getLogger(__name__)


@dataclass
class Training:
    """Everything that one process of a run holds; `run` trains to the end."""

    recipe: Recipe
    settings: RunSettings
    fabric: Fabric
    learner: Learner
    loader: Loader | DomainPairs
    evaluation_loaders: Mapping[str, Loader]
    metrics: Sequence[Metric]
    folder: RunFolder
    card: ModelCard
    observers: ObserverFactory | None = None
    callbacks: Sequence[Callback] = ()
    progress: Callable[[int, int], TrainingProgress] | None = None
    best_score: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.together = Together(self.fabric)
        self.first = self.together.rank == 0
        self.steps_per_epoch = len(self.loader)
        self.total_steps = self.settings.total_steps(self.steps_per_epoch)
        self.records = Records(self.folder.metrics)
        self.saved_step = -1
        self._skipped: dict[str, str] = {}  # as of the last checkpoint, in all processes
        self._bar: TrainingProgress | None = None
        self._since = (time.perf_counter(), 0)
        self._waited = 0.0
        self._check_best()

    def run(self, resume: bool = False, allow_changes: bool = False, allow_world_size_change: bool = False) -> None:
        """Train to the end. Raises Interrupted after a signal, NotFiniteError, StorageError, RankFailedError; DataError for unreadable samples."""
        with StopRequests() as self.stop, failures_of_others(self.together), self._loading():
            try:
                self.learner.setup(self.fabric, self.total_steps, self.steps_per_epoch)
                start = self._resume(allow_changes, allow_world_size_change) if resume else self._begin()
                with self._logging(start), self._showing(start) as callbacks:
                    self._train(self._plan(start), callbacks)
            except StopAskedError as asked:
                where = f"Stopped at step {asked.step} of {self.total_steps}; its checkpoint is {self.folder.checkpoints / 'last'}."
                raise Interrupted(asked.signal_number, where) from None
            except NotFiniteError as error:
                if self.first:
                    write_json(self.folder.path / "not_finite.json", error.report)
                raise

    def _plan(self, start: int) -> Plan:
        saves, evaluates = self.settings.save_interval(self.steps_per_epoch), self.settings.evaluation_interval(self.steps_per_epoch)
        return Plan(start, self.total_steps, self.settings.log_every, saves, evaluates)

    def _check_best(self) -> None:
        """A figure that does not exist is noticed now and not at the first evaluation."""
        known = [f"{data}/{name}" for data in self.evaluation_loaders for metric in self.metrics for name in metric.compute()]
        if self.settings.best is not None and self.settings.best not in known:
            shown = ", ".join(difflib.get_close_matches(self.settings.best, known, n=4, cutoff=0.3) or known) or "none, for it evaluates nothing"
            raise InputError(f"run.best names the figure {self.settings.best!r}, which this run does not have; it has {shown}")

    def _train(self, plan: Plan, callbacks: Sequence[Callback]) -> None:
        if plan.start and plan.evaluates(plan.start) and not self._is_evaluated(plan.start):
            self._evaluate(plan.start)  # the run was killed between this step's checkpoint and its evaluation
        if plan.start >= plan.total:
            return
        batches = self._batches(plan.start)
        self._since = (time.perf_counter(), plan.start)
        run_steps(
            plan, self.learner, fetch=lambda: self._fetch(batches), record=self._record, save=self._save, evaluate=self._evaluate,
            stop_signal=lambda: self.together.highest(self.stop.signal_number), callbacks=callbacks,
        )

    def _begin(self) -> int:
        seed_everything(self.settings.seed, self.together.rank)
        note = selection_note(self.recipe.values)
        if note is not None and self.first:
            _log.info("%s", note)
        return 0

    def _resume(self, allow_changes: bool, allow_world_size_change: bool) -> int:
        """Load the newest whole checkpoint; returns its step."""
        if self.first:
            self.folder.clean()
        newest = self.together.from_first(checkpoints.newest_valid(self.folder.checkpoints) if self.first else None)
        if newest is None:
            _log.warning("%s has no complete checkpoint yet; the run starts from the beginning", self.folder.path)
            if self.first:
                self.records.cut_after(0)
            return self._begin()
        state = checkpoints.load_training(newest)
        permitted = check_conditions(
            state["conditions"], self.recipe, self._conditions(), allow_changes=allow_changes, allow_world_size_change=allow_world_size_change
        )
        load_whole_tensors(self.learner, checkpoints.load_tensors(newest), newest)
        self.learner.load_state_dict(state["learner"])
        step = int(state["step"])
        if len(state["random"]) == self.together.world_size:
            set_random_state(state["random"][self.together.rank], self.fabric.device)
        else:
            seed_everything(self.settings.seed + step, self.together.rank)
        self._skipped = merged(state["skipped"])
        self.loader.skipped |= state["skipped"][self.together.rank] if len(state["skipped"]) == self.together.world_size else self._skipped
        self.best_score, self.saved_step = state["best_score"], step
        if self.first:
            self.folder.describe(self.recipe)
            self.records.cut_after(step)
            self._recall_best()
            self.records.append("resume", step, {"checkpoint": newest.name, **({"permitted": permitted} if permitted else {})})
            _log.info("resuming at step %d from %s", step, newest)
        self.best_score = self.together.from_first(self.best_score)
        return step

    def _recall_best(self) -> None:
        """The evaluation of the checkpoint's own step came after it was written."""
        for record in self.records.read():
            score = record.get(self.settings.best or "")
            target = checkpoints.folder_of(self.folder.checkpoints, record["step"])
            if isinstance(score, float) and target.is_dir() and self.settings.is_better(score, self.best_score):
                self.best_score = score
                checkpoints.point(self.folder.checkpoints, "best", target)

    def _conditions(self) -> Conditions:
        dataset = self.loader.dataset
        source = self.loader.source if isinstance(self.loader, DomainPairs) else None
        classes = dataset.classes if source is None else source.classes
        return Conditions(
            self.recipe.values, self.together.world_size, self.steps_per_epoch, len(dataset), list(classes), None if source is None else len(source)
        )

    def _batches(self, start: int) -> Iterator[Batch]:
        """The batches from step `start` on. The first is made here, for starting the data workers draws random numbers."""
        batches = self.loader.batches(start)
        with undisturbed_randomness(self.fabric.device):
            first = next(batches)

        def all_of_them() -> Iterator[Batch]:
            yield first
            yield from batches

        return all_of_them()

    def _fetch(self, batches: Iterator[Batch]) -> list[Batch]:
        begun = time.perf_counter()
        parts = [next(batches) for _ in range(self.settings.accumulate)]
        if self.fabric.device.type != "cpu":
            parts = [part.to(self.fabric.device, non_blocking=True) for part in parts]
        self._waited += time.perf_counter() - begun
        return parts

    def _record(self, step: int, figures: Mapping[str, float]) -> None:
        now, (before, step_before) = time.perf_counter(), self._since
        seconds = max(now - before, 1e-9)
        speed = {"images_per_second": (step - step_before) * self.settings.batch_size / seconds, "waiting": min(1.0, self._waited / seconds)}
        self._since, self._waited = (now, step), 0.0
        if self.first:
            values = {"epoch": round(step / self.steps_per_epoch, 4), **figures, **{k: round(v, 3) for k, v in speed.items()}}
            self.records.append("train", step, values)
            for logger in self._loggers:
                logger.log(step, values)

    def _save(self, step: int) -> None:
        """Write the checkpoint of `step`, unless that was done. On a full disk training goes on to the next one, but not at the end."""
        if step == self.saved_step:
            return
        tensors, learner = whole_tensors(self.learner.model), self.learner.state_dict()
        state: dict[str, Any] = {
            "step": step, "learner": learner, "conditions": self._conditions().as_state(), "best_score": self.best_score,
            "random": self.together.gathered(random_state(self.fabric.device)), "skipped": self.together.gathered(self.loader.skipped),
        }
        self._skipped = merged(state["skipped"])
        problem = None
        if self.first:
            try:
                checkpoints.save_checkpoint(self.folder.checkpoints, step, tensors, self._card_of(step), state)
                checkpoints.purge(self.folder.checkpoints, self.settings.keep_last, checkpoints.pointed(self.folder.checkpoints, "best"))
            except StorageError as error:
                problem = str(error)
        problem = self.together.from_first(problem)
        if problem is None:
            self.saved_step = step
        elif self.settings.strict_storage or step == self.total_steps or self.stop.signal_number:
            raise StorageError(f"The checkpoint of step {step} is not written. {problem}")
        else:
            _log.error("THE CHECKPOINT OF STEP %d IS NOT WRITTEN; training goes on to the next one. %s", step, problem)
            if self.first:
                self.records.append("checkpoint failed", step, {"reason": problem})

    def _card_of(self, step: int) -> ModelCard:
        provenance = {**self.card.provenance, "step": step, "epoch": round(step / self.steps_per_epoch, 4)}
        return ModelCard(self.card.model, self.card.classes, self.card.evaluation_transforms, provenance)

    def _is_evaluated(self, step: int) -> bool:
        done = self.first and any(r["kind"] == "evaluation" and r["step"] == step for r in self.records.read())
        return bool(self.together.highest(int(done)))

    def _evaluate(self, step: int) -> None:
        """Score the model on every data set, write the results, and keep the checkpoint where it is the best."""
        if not self.evaluation_loaders:
            return
        self.together.same_buffers(self.learner.model)
        figures: dict[str, float] = {}
        with undisturbed_randomness(self.fabric.device):
            for name, loader in self.evaluation_loaders.items():
                try:
                    own = self._evaluate_on(name, loader)
                except EvaluationStoppedError:
                    self._save(step)
                    raise StopAskedError(step, self.together.highest(self.stop.signal_number)) from None
                figures |= {f"{name}/{key}": value for key, value in own.items()}
        if self.first:
            self.records.append("evaluation", step, figures)
            for logger in self._loggers:
                logger.log(step, figures)
            self._tell(step, figures)
        if self.settings.best is not None:
            self._keep_best(step, figures[self.settings.best])
        self._since = (time.perf_counter(), step)

    def _evaluate_on(self, name: str, loader: Loader) -> dict[str, float]:
        folder, classes = self.folder.evaluation(name), self.learner.model.classes
        collector = PredictionCollector(classes, category_ids=getattr(loader.dataset, "category_ids", None))
        shown = [self._bar.counting(name, len(loader.dataset))] if self._bar else []
        made = list(self.observers(name, loader.dataset, folder, classes)) if self.observers and self.first else []
        try:
            figures = evaluate(
                self.learner.model, loader, self.metrics, [collector, *shown, *made], together=self.together,
                autocast=self._autocast, stop=lambda: self.stop.signal_number,
            )
        finally:
            for bar in shown:
                bar.close()
        collector.gather(self.together)
        skipped = merged(self.together.gathered(loader.skipped))
        if self.first:
            try:
                write_results(folder, figures, self.metrics, collector, skipped)
                for observer in made:
                    close = getattr(observer, "close", None)
                    if close is not None:
                        close()
            except StorageError as error:
                _log.error("the results on %s are not written: %s", name, error)
        return figures

    def _autocast(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self.fabric.strategy.precision.forward_context()
        return context

    def _keep_best(self, step: int, score: float) -> None:
        """Keep the checkpoint of `step` as the best where `score` beats the best so far."""
        if not self.settings.is_better(score, self.best_score):
            return
        self._save(step)
        if self.saved_step == step:
            self.best_score = score
            if self.first:
                checkpoints.point(self.folder.checkpoints, "best", checkpoints.folder_of(self.folder.checkpoints, step))

    def _tell(self, step: int, figures: Mapping[str, float]) -> None:
        """One line with the first figure of every metric, those of single classes left out; metrics.jsonl has all of them."""
        first: dict[str, str] = {}
        for name, value in ((n, v) for n, v in figures.items() if "/class/" not in n):
            first.setdefault(name.rpartition("/")[0], f"{name} {value:.4f}")
        _log.info("step %d: %s", step, "  ".join(first.values()))

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        """However the run ends, its data workers end too, and the first process lists the samples that could not be read."""
        try:
            with deaths_of_workers():
                yield
        finally:
            for loader in (self.loader, *self.evaluation_loaders.values()):
                loader.close()
            skipped = self._skipped | self.loader.skipped
            if self.first and skipped:
                try:
                    write_json(self.folder.skipped, skipped)
                except StorageError as error:
                    _log.error("the %d samples that could not be read are not listed: %s", len(skipped), error)

    @contextlib.contextmanager
    def _logging(self, start: int) -> Iterator[None]:
        self._loggers: list[Logger] = list(self.settings.loggers) if self.first else []
        for logger in self._loggers:
            logger.start(self.folder.path, self.folder.path.name, self.recipe.values, start)
        try:
            yield
        finally:
            for logger in self._loggers:
                logger.finish()

    @contextlib.contextmanager
    def _showing(self, start: int) -> Iterator[list[Callback]]:
        if self.progress is None or not self.first:
            yield list(self.callbacks)
            return
        with self.progress(start, self.total_steps) as self._bar:
            yield [self._bar, *self.callbacks]


def merged(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What was skipped in several processes, as one."""
    return {item: reason for part in parts for item, reason in part.items()}


def load_whole_tensors(learner: Learner, tensors: Mapping[str, Any], checkpoint: Path) -> None:
    """Load a checkpoint's weights into the learner's model, which may be spread over processes."""
    from saccade.learning.wrapping import is_sharded

    if not is_sharded(learner.model):
        checkpoints.fill(learner.model, tensors, str(checkpoint))
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(learner.model, dict(tensors), options=StateDictOptions(full_state_dict=True))
