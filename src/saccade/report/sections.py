"""From what runs recorded to what a report shows: tables and charts, several runs side by side. Knows the names of figures but no metric's code.

What metrics say in detail is recognised by shape: `per_class` (columns of equal length beside `classes`), `pr_curves` (`recall`, `classes`, and
`precision` by threshold) and `confusion_matrix` (rows are the truth).
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from saccade.engine.selection import PREFIX
from saccade.report.plots import NUM_COLOURS, Series, bar_chart, heat_map, line_chart, number, row_chart, smooth
from saccade.report.run_data import Run, flatten

# The figures that people ask for first, in this order; whatever else there is comes after.
_FIRST = (
    "coco/AP", "coco/AP50", "voc/mAP", "voc/mAP07", "coco/segm/AP", "classification/top1", "classification/top5",
    "classification/mean_class_accuracy", "classification/mAP", "iou/mIoU", "panoptic/PQ", "mot/MOTA", "mot/IDF1", "mot/HOTA",
)
_COUNTS = ("classes", "objects", "support", "pixels")  # columns of tables by class that say what there was
_MOST_MATRIX_CLASSES, _MOST_CURVES, _FIRST_CHARTS = 40, NUM_COLOURS, 6
MISSING = "–"


@dataclass(frozen=True)
class Table:
    """`rows` of texts under `columns`; `marked` are the (row, column) of cells to set in bold. `label_columns` at the left are names, not numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[tuple[int, int]] = frozenset()
    label_columns: int = 1


@dataclass(frozen=True)
class Chart:
    """A chart with its heading."""

    title: str
    svg: Markup


def data_names(runs: Sequence[Run]) -> list[str]:
    """The data sets that any run was evaluated on, in the order of the first run that names them."""
    return list(dict.fromkeys(name for run in runs for name in run.results))


def figure_names(runs: Sequence[Run]) -> list[str]:
    """All figures of all data sets, the one that a run keeps its best checkpoint by first, then the well-known ones."""
    names = dict.fromkeys(figure for run in runs for result in run.results.values() for figure in result.figures)
    wanted = [str((run.recipe.get("run") or {}).get("best", "")).partition("/")[2] for run in runs]
    order = {name: i for i, name in enumerate(dict.fromkeys([*wanted, *_FIRST]))}
    return sorted(names, key=lambda name: order.get(name, len(order)))


def headline_names(names: Sequence[str]) -> list[str]:
    """Those of `names` that stand on the first screen (at most four, and the first two where none is well-known)."""
    return [name for name in names if name in _FIRST][:4] or list(names[:2])


def figures_table(runs: Sequence[Run], names: Sequence[str]) -> Table:
    """One row a figure (and run, where there are several), one column a data set; the best run of each figure and data set is marked, but for figures
    without labels, which do not say who is right."""
    data = data_names(runs)
    several = len(runs) > 1
    rows: list[list[str]] = []
    marked = set()
    for name in names:
        values = [[_value(run, d, name) for d in data] for run in runs]
        for r, run in enumerate(runs):
            for d in range(len(data)):
                known = [value for row in values if (value := row[d]) is not None]
                if several and len(known) > 1 and values[r][d] == max(known) and not name.startswith(PREFIX):
                    marked.add((len(rows), d + 2))
            rows.append([name, *([run.name] if several else []), *(_show(v) for v in values[r])])
    return Table(["figure", *(["run"] if several else []), *data], rows, frozenset(marked), 2 if several else 1)


def _value(run: Run, data: str, figure: str) -> float | None:
    result = run.results.get(data)
    value = None if result is None else result.figures.get(figure)
    return None if value is None or not math.isfinite(value) or value == -1 else value


def _show(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return number(value)
    return f"{value:.3f}" if isinstance(value, float) and abs(value) < 10 else number(value)


@dataclass(frozen=True)
class MethodResult:
    """How one way to a model did on one data set: its name, the data set, figures as fractions. `competes`: its best figures are marked."""

    method: str
    data: str
    figures: Mapping[str, float]
    competes: bool = False


TRACKING_FIGURES = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")


def methods_table(results: Sequence[MethodResult], names: Sequence[str] = TRACKING_FIGURES, prefix: str = "mot/") -> Table:
    """One row a result, in per cent with one decimal; the best of those that compete is marked in each column."""
    marked = set()
    rows = [[result.method, result.data, *(_percent(result.figures.get(prefix + name)) for name in names)] for result in results]
    for column, name in enumerate(names, 2):
        values = {r: result.figures[prefix + name] for r, result in enumerate(results) if result.competes and prefix + name in result.figures}
        known = {r: value for r, value in values.items() if math.isfinite(value)}
        marked |= {(r, column) for r, value in known.items() if value == max(known.values())}
    return Table(["model", "tested on", *names], rows, frozenset(marked), 2)


def _percent(value: float | None) -> str:
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def domain_chart(runs: Sequence[Run], figure: str) -> Chart | None:
    """The main figure on each data set as bars, one bar a run: day, night and fog side by side. None where there is nothing to compare."""
    data = data_names(runs)
    if len(data) * len(runs) < 2:
        return None
    groups = [(d, [_value(run, d, figure) for run in runs]) for d in data]
    return Chart(f"{figure} by data set", bar_chart(groups, [run.name for run in runs], title=f"{figure} by data set", y_label=figure))


def training_charts(runs: Sequence[Run]) -> tuple[list[Chart], list[Chart]]:
    """Curves of what was recorded while training, all runs in one chart a figure: the loss, its terms and the learning rate, then the rest."""
    names = list(dict.fromkeys(name for run in runs for name in run.train_names()))
    charts = []
    for name in names:
        series: list[Series] = []
        for i, run in enumerate(runs):
            points = run.train_curve(name)
            softened = points if name.startswith("lr") else smooth(points)  # a schedule has no noise, only corners
            if softened != points:
                series.append(Series(run.name, points, i, faint=True))
            series.append(Series(run.name, softened, i))
        charts.append(Chart(name, line_chart(series, title=name, x_label="step", log_y=_spans_decades(series))))
    return charts[:_FIRST_CHARTS], charts[_FIRST_CHARTS:]


def _spans_decades(series: Sequence[Series]) -> bool:
    values = [y for s in series for _, y in s.points if math.isfinite(y)]
    return bool(values) and min(values) > 0 and max(values) / min(values) > 30


def evaluation_charts(runs: Sequence[Run], names: Sequence[str]) -> tuple[list[Chart], list[Chart]]:
    """Figures over the evaluations. One run: a chart a figure, its data sets as curves. Several: a chart a figure and data set, the runs as curves,
    those beyond the first figure apart, for there are many.
    """
    if len(runs) == 1:
        charts = [_evaluation_chart(figure, [(data, runs[0], data, i) for i, data in enumerate(runs[0].results)], figure) for figure in names]
        return [chart for chart in charts if chart is not None], []
    by_figure = []
    for figure in names:
        made = [_evaluation_chart(f"{figure} on {d}", [(run.name, run, d, i) for i, run in enumerate(runs)], figure) for d in data_names(runs)]
        by_figure.append([chart for chart in made if chart is not None])
    return (by_figure[0] if by_figure else []), [chart for charts in by_figure[1:] for chart in charts]


def _evaluation_chart(title: str, curves: Sequence[tuple[str, Run, str, int]], figure: str) -> Chart | None:
    series = [Series(label, run.evaluation_curve(f"{data}/{figure}"), colour) for label, run, data, colour in curves]
    if not any(math.isfinite(y) for one in series for _, y in one.points):
        return None
    return Chart(title, line_chart(series, title=title, x_label="step"))


def class_tables(runs: Sequence[Run], data: str) -> list[tuple[str, Table]]:
    """(metric, per-class table) for one data set. With one run all columns, with several the main figure of each run beside the other's."""
    tables = []
    for metric in _metrics(runs, data, "per_class"):
        columns = [_columns(run, data, metric) for run in runs]
        classes = list(dict.fromkeys(str(c) for found in columns for c in found.get("classes", [])))
        if not classes:
            continue
        tables.append((metric, _all_columns(columns[0]) if len(runs) == 1 else _main_columns(runs, columns, classes)))
    return tables


def _metrics(runs: Sequence[Run], data: str, part: str) -> list[str]:
    entries = [entry for run in runs if data in run.results for entry in run.results[data].details.items()]
    return list(dict.fromkeys(metric for metric, entry in entries if isinstance(entry, Mapping) and part in entry))


def _columns(run: Run, data: str, metric: str) -> Mapping[str, Sequence[Any]]:
    result = run.results.get(data)
    entry = {} if result is None else result.details.get(metric)
    per_class = entry.get("per_class") if isinstance(entry, Mapping) else None
    if not isinstance(per_class, Mapping) or not isinstance(per_class.get("classes"), list):
        return {}
    length = len(per_class["classes"])
    return {key: column for key, column in per_class.items() if isinstance(column, list) and len(column) == length}


def _all_columns(columns: Mapping[str, Sequence[Any]]) -> Table:
    names = [key for key in columns if key != "classes" and not any(isinstance(v, list | dict) for v in columns[key])]
    rows = [[str(c), *(_show(columns[n][i]) for n in names)] for i, c in enumerate(columns["classes"])]
    return Table(["class", *names], rows)


def _main_columns(runs: Sequence[Run], columns: Sequence[Mapping[str, Sequence[Any]]], classes: Sequence[str]) -> Table:
    candidates = [key for found in columns for key in found if key not in _COUNTS]
    if not candidates:
        return Table(["class"], [[c] for c in classes])
    main = candidates[0]
    rows: list[list[str]] = []
    marked = set()
    for name in classes:
        values = [_of_class(found, main, name) for found in columns]
        known = [v for v in values if isinstance(v, int | float)]
        marked |= {(len(rows), i + 1) for i, v in enumerate(values) if len(known) > 1 and v == max(known)}
        rows.append([name, *(_show(v) for v in values)])
    return Table(["class", *(f"{main}: {run.name}" for run in runs)], rows, frozenset(marked))


def _of_class(columns: Mapping[str, Sequence[Any]], key: str, name: str) -> Any:
    names = [str(c) for c in columns.get("classes", [])]
    return columns[key][names.index(name)] if key in columns and name in names else None


def class_bar_charts(runs: Sequence[Run], data: str) -> list[Chart]:
    """The main figure of each class as bars, a run beside the other; nothing for one run, whose table says it, or more classes than can be read."""
    charts = []
    for metric in _metrics(runs, data, "per_class") if len(runs) > 1 else []:
        columns = [_columns(run, data, metric) for run in runs]
        classes = list(dict.fromkeys(str(c) for found in columns for c in found.get("classes", [])))
        main = next((key for found in columns for key in found if key not in _COUNTS), None)
        if main is None or len(classes) > _MOST_MATRIX_CLASSES:
            continue
        rows = [(name, [_as_value(_of_class(found, main, name)) for found in columns]) for name in classes]
        title = f"{main} by class"
        charts.append(Chart(title, row_chart(rows, [run.name for run in runs], title=title)))
    return charts


def _as_value(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value != -1 else None


def precision_recall_charts(runs: Sequence[Run], data: str) -> list[Chart]:
    """Precision over recall: the classes of one run (or their mean where they are many), the means of several runs beside each other."""
    charts = []
    for metric in _metrics(runs, data, "pr_curves"):
        series: list[Series] = []
        threshold = ""
        for i, run in enumerate(runs):
            curves = list(_precision_recall(run, data, metric))
            if not curves:
                continue
            threshold = curves[0][0]
            if len(runs) == 1 and len(curves) <= _MOST_CURVES:
                series += [Series(name, points, k) for k, (_, name, points) in enumerate(curves)]
            else:
                series.append(Series(f"{run.name}, mean of classes" if len(runs) > 1 else "mean of classes", _mean_curve(curves), i))
        if series:
            title = f"{metric}: precision over recall" + (f", IoU {threshold}" if threshold else "")
            charts.append(Chart(title, line_chart(series, title=title, x_label="recall", y_label="precision", x_range=(0, 1), y_range=(0, 1.02))))
    return charts


def _precision_recall(run: Run, data: str, metric: str) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    """(threshold, class, points) of the first threshold; recall is one axis for all classes or one list a class."""
    result = run.results.get(data)
    entry = None if result is None else result.details.get(metric)
    curves = entry.get("pr_curves") if isinstance(entry, Mapping) else None
    if not isinstance(curves, Mapping) or not {"recall", "classes", "precision"} <= set(curves):
        return
    precision, recall = curves["precision"], curves["recall"]
    threshold, rows = next(iter(precision.items())) if isinstance(precision, Mapping) else ("", precision)
    if isinstance(recall, Mapping):
        recall = recall.get(threshold, [])
    for i, (name, row) in enumerate(zip(curves["classes"], rows)):
        axis = recall[i] if recall and isinstance(recall[i % len(recall)], list) else recall
        if isinstance(row, list) and isinstance(axis, list) and len(row) == len(axis):
            yield str(threshold), str(name), [(float(r), float(p)) for r, p in zip(axis, row) if r is not None and p is not None]


def _mean_curve(curves: Sequence[tuple[str, str, list[tuple[float, float]]]]) -> list[tuple[float, float]]:
    # On a common grid, with the largest precision at that recall or beyond, as both COCO and VOC read such curves.
    grid = [i / 100 for i in range(101)]
    means = []
    for recall in grid:
        values = [max((p for r, p in points if r >= recall - 1e-9), default=0.0) for _, _, points in curves]
        means.append((recall, sum(values) / len(values)))
    return means


def confusion_charts(runs: Sequence[Run], data: str) -> list[tuple[Chart | None, Table]]:
    """For each run with a confusion matrix: the matrix (None for more classes than anyone could read) and its largest confusions."""
    found = []
    for metric in _metrics(runs, data, "confusion_matrix"):
        for run in runs:
            entry = run.results[data].details.get(metric) if data in run.results else None
            matrix = entry.get("confusion_matrix") if isinstance(entry, Mapping) else None
            names = (entry or {}).get("classes") or _columns(run, data, metric).get("classes")
            if isinstance(matrix, Mapping):
                names, matrix = matrix.get("classes", names), matrix.get("counts")
            if not isinstance(matrix, list) or not matrix:
                continue
            labels = [str(n) for n in names] if names and len(names) == len(matrix) else [str(i) for i in range(len(matrix))]
            title = "Confusion matrix" + (f", {run.name}" if len(runs) > 1 else "")
            chart = None
            if len(matrix) <= _MOST_MATRIX_CLASSES:
                chart = Chart(title, heat_map(matrix, labels, labels, title=title, row_label="truth", column_label="prediction"))
            found.append((chart, _largest_confusions(matrix, labels)))
    return found


def _largest_confusions(matrix: Sequence[Sequence[float]], labels: Sequence[str], most: int = 10) -> Table:
    pairs = [(value, i, j) for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j and value]
    rows = []
    for value, i, j in sorted(pairs, reverse=True)[:most]:
        rows.append([labels[i], labels[j], number(value), f"{value / sum(matrix[i]):.1%}"])
    return Table(["truth", "taken for", "count", "of the class"], rows, label_columns=2)


def recipe_table(run: Run) -> Table:
    """Every value of a run's recipe with its origin."""
    rows = [[path, _text(value), run.origins.get(path, "")] for path, value in flatten(run.recipe) if path]
    return Table(["key", "value", "where it was set"], rows, label_columns=3)


def difference_table(values: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    """The keys whose values are not the same in all of several nested mappings (recipes or environments)."""
    flat = [dict(flatten(v)) for v in values]
    keys = dict.fromkeys(key for one in flat for key in one if key)
    rows = [[key, *(_text(one[key]) if key in one else MISSING for one in flat)] for key in keys if len({repr(one.get(key)) for one in flat}) > 1]
    return Table(["key", *names], rows, label_columns=1 + len(names))


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
