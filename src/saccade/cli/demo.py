"""`saccade demo`: tracking and adaptation from beginning to end on the built-in town: train by day, fail in fog, adapt there, compare."""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from saccade.recipes import Recipe
    from saccade.report.page import Opening
    from saccade.report.sections import MethodResult, Table

DAY = "day"
RUNS = ("source", "tent", "darth", "darth_online", "oracle")  # folders
CLIPS = 3  # videos that are shown side by side
_METHODS = ("tent", "darth", "oracle")
# What makes the demo a matter of minutes: fewer steps, and every second frame learnt from online. Overrides of the user come after them.
_SHORT = ("run.steps=500", "darth.online.every=2", "oracle.run.steps=300")
_IN_WORDS = {"fog": "in fog", "night": "by night"}


def command(
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Overrides of the recipe qdtrack_town (run.steps=200), or of a method's (darth.run.steps=100).")
    ] = None,
    target: Annotated[Literal["fog", "night"], typer.Option(help="The domain that is adapted to.")] = "fog",
    out: Annotated[Path | None, typer.Option(help="The folder of all runs; by default the first free one of runs/demo, ...")] = None,
) -> None:
    """Train a small tracker on the town by day, adapt it to fog or night by TENT and DARTH, compare: a table, a video side by side, a report."""
    import time

    from rich.console import Console

    from saccade.report.page import write_page
    from saccade.report.sections import methods_table

    begun = time.perf_counter()
    console = Console()
    demo = Demo.of(target, [*_SHORT, *(overrides or [])], out or next(free_folders("demo")), console)
    where = _IN_WORDS[target]
    with demo.step(1, f"training {demo.source.name} on the town by day, then testing it by day and {where}"):
        demo.train("source", demo.source)
    with demo.step(2, f"adapting it {where} without labels: TENT"):
        demo.train("tent", demo.adapting("tent"))
    with demo.step(3, "the same: DARTH, offline"):
        demo.train("darth", demo.adapting("darth"))
    with demo.step(4, "the same: DARTH, online; each frame is predicted and scored, then learnt from"):
        demo.adapt_online("darth_online")
    with demo.step(5, f"training it {where} with labels, for comparison: the oracle"):
        demo.train("oracle", demo.oracle())
    with demo.step(6, "drawing truth, before and after side by side; writing the report"):
        results = demo.results()
        table = methods_table(results)
        page = write_page([demo.folder / name for name in RUNS], demo.folder / "report.html", demo.opening(results, table))
    console.print(_shown(table))
    console.print(_in_a_sentence(results, where), highlight=False, soft_wrap=True)
    console.print(f"report: {page.resolve()}  ({time.perf_counter() - begun:.0f} s in all)", highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Demo:
    """What the steps share: the recipes, the folder, and the target's data on which all are tested."""

    target: str
    folder: Path
    console: Console
    source: Recipe
    methods: dict[str, Recipe]
    oracle_overrides: list[str]

    @classmethod
    def of(cls, target: str, overrides: Sequence[str], folder: Path, console: Console) -> Demo:
        """The demo with `overrides` shared out: those that begin with the name of a method and a dot are of this method's recipe.

        Raises InputError before anything is trained, for what is wrong with a recipe and for a folder that holds runs.
        """
        from saccade.engine.run_folder import RunFolder
        from saccade.recipes import check, load_recipe

        for name in RUNS:
            RunFolder(folder / name).check(resume=False)
        own = {name: [text.removeprefix(f"{name}.") for text in overrides if text.startswith(f"{name}.")] for name in _METHODS}
        methods = {name: load_recipe(f"{name}_town_{target}", own[name]) for name in _METHODS}
        mine = [text for text in overrides if not text.startswith(tuple(f"{name}." for name in _METHODS))]
        by_day = load_recipe("qdtrack_town", mine).values["data"]["evaluate"][DAY]
        tested = {DAY: by_day, target: methods["darth"].values["data"]["evaluate"][target]}
        source = load_recipe("qdtrack_town", [*mine, *_replacing({"data.evaluate": tested})])
        for recipe in (source, *methods.values()):
            check(recipe)
        return cls(target, folder, console, source, methods, own["oracle"])

    @property
    def data(self) -> dict[str, Any]:
        """The spec of the target's data that all models are tested on."""
        spec: dict[str, Any] = self.source.values["data"]["evaluate"][self.target]
        return spec

    @contextmanager
    def step(self, number: int, words: str) -> Iterator[None]:
        """Says what is done, and afterwards how long it took."""
        import time

        begun = time.perf_counter()
        self.console.print(f"{number}/6  {words}", highlight=False, soft_wrap=True)
        yield
        self.console.print(f"     {time.perf_counter() - begun:.0f} s", style="dim", highlight=False)

    def train(self, name: str, recipe: Recipe) -> None:
        """Run `recipe` in its folder and test what comes out."""
        from saccade.engine.adaptation import keep_other_network
        from saccade.engine.experiment import Experiment
        from saccade.engine.progress import TrainingProgress
        from saccade.report.gallery import gallery_of

        experiment = Experiment.from_recipe(recipe)
        progress = lambda start, total: TrainingProgress(self.console, start, total)  # noqa: E731
        run = experiment.train(self.folder / name, observers=gallery_of, progress=progress)
        keep_other_network(run.path)

    def adapting(self, method: str) -> Recipe:
        """The recipe of a method with the source model in it, tested on the data that all are tested on."""
        from saccade.engine.adaptation import adaptation_recipe, find_source
        from saccade.recipes import recipe_from_values

        recipe = self.methods[method]
        values = {**recipe.values, "data": {**recipe.values["data"], "evaluate": {self.target: self.data}}}
        return adaptation_recipe(recipe_from_values(values, recipe.name, recipe.source), find_source(self.folder / "source"), None)

    def adapt_online(self, name: str) -> None:
        """DARTH in one pass over the frames that the others are tested on."""
        from saccade.engine.experiment import Experiment
        from saccade.engine.online import adapt_online
        from saccade.engine.progress import counting
        from saccade.recipes import build_section, recipe_from_values
        from saccade.report.gallery import gallery_of

        recipe = self.adapting("darth")
        stream = recipe.values["data"]["evaluate"][self.target]
        recipe = recipe_from_values({**recipe.values, "data": {**recipe.values["data"], "train": stream}}, recipe.name, recipe.source)
        experiment = Experiment.from_recipe(recipe)
        assert experiment.data.train is not None
        with counting(self.console, self.target, len(experiment.data.train)) as bar:
            adapt_online(
                experiment, build_section(recipe, "online"), self.folder / name, observers=gallery_of, progress=lambda _: bar, data_name=self.target
            )

    def oracle(self) -> Recipe:
        """The source model trained further with the target's labels."""
        from saccade.engine.checkpoints import WEIGHTS, find_checkpoint
        from saccade.recipes import load_recipe

        weights = {"source": str((find_checkpoint(self.folder / "source") / WEIGHTS).resolve())}
        given = _replacing({"model": self.source.values["model"], "data.evaluate": {self.target: self.data}})
        return load_recipe(f"oracle_town_{self.target}", [*self.oracle_overrides, *given, f"weights={json.dumps(weights)}"])

    def results(self) -> list[MethodResult]:
        """The rows of the table."""
        from saccade.report.sections import MethodResult

        def result(method: str, run: str, data: str, competes: bool = False) -> MethodResult:
            figures = json.loads((self.folder / run / "evaluation" / data / "figures.json").read_text())
            known = {name: value for name, value in figures.items() if isinstance(value, int | float)}
            return MethodResult(method, data, known, competes)

        return [
            result("source", "source", DAY),
            result("source, not adapted", "source", self.target, True),
            result("TENT", "tent", self.target, True),
            result("DARTH, offline", "darth", self.target, True),
            result("DARTH, online (prequential)", "darth_online", self.target, True),
            result("oracle, with labels", "oracle", self.target),
        ]

    def opening(self, results: Sequence[MethodResult], table: Table) -> Opening:
        """What the report begins with; the video is made here."""
        from saccade.recipes import build
        from saccade.report.opening import open_model
        from saccade.report.page import Opening
        from saccade.report.side_by_side import write_side_by_side

        dataset, where = build(self.data, where=f"data.evaluate.{self.target}"), _IN_WORDS[self.target]
        before, after = (open_model(str(self.folder / name)) for name in ("source", "darth"))
        titles = ("truth", "before: trained by day", f"after: adapted {where} by DARTH")
        video = write_side_by_side(dataset, before, after, self.folder / "side_by_side.mp4", titles=titles, videos=CLIPS)
        return Opening(
            title=f"From day to {self.target}: a tracker adapts without labels", words=_in_a_sentence(results, where), table=table, video=video,
            picture=video.with_suffix(".jpg"),
            video_words="Every colour is an identity and should keep to its object; a tail shows where that was in the frames before.",
        )


def free_folders(name: str) -> Iterator[Path]:
    """runs/NAME, runs/NAME-2, ...: those that do not exist yet."""
    number = 1
    while True:
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            yield folder
        number += 1


def _replacing(values: Mapping[str, Any]) -> list[str]:
    """Overrides that put `values` in the place of what is there; an override alone would merge mappings."""
    return [text for key, value in values.items() for text in (f"{key}=!delete", f"{key}={json.dumps(value)}")]


def _in_a_sentence(results: Sequence[MethodResult], where: str) -> str:
    """What the table says about HOTA, in words."""
    day, source, _, darth, _, oracle = (result.figures.get("mot/HOTA", float("nan")) for result in results)
    closed = (darth - source) / (oracle - source) if oracle > source else 0.0
    way = f", {closed:.0%} of the way to a model that was given the labels" if closed > 0 else ""
    return (
        f"A tracker that learnt the town by day reaches a HOTA of {100 * day:.1f} there and of {100 * source:.1f} {where}. "
        f"Adapted {where} without labels (DARTH) it reaches {100 * darth:.1f}{way}."
    )


def _shown(table: Table) -> Any:
    from rich import box
    from rich.table import Table as ConsoleTable

    shown = ConsoleTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(table.columns):
        shown.add_column(name, justify="left" if i < table.label_columns else "right")
    for r, row in enumerate(table.rows):
        shown.add_row(*(f"[bold]{cell}[/bold]" if (r, c) in table.marked else cell for c, cell in enumerate(row)))
    return shown
