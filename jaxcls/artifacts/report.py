"""``report.html``: a finished run as one self-contained page, which needs no network."""

import base64
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from jaxcls import two_layer
from jaxcls.artifacts import record
from jaxcls.artifacts.folder import replacing
from jaxcls.artifacts.record import Run
from jaxcls.grid import Cells, edge, of_table
from jaxcls.numerics import one_line
from jaxcls.table import SCORES, best_first, edges, tied

PICTURES = {
    "heatmap.png": "Accuracy over the grid: the best cell outlined, a dot in those within one standard error",
    "points.png": "Accuracy of each point; small, or a thin line, if dropped before the end",
    "history.png": "Loss and accuracy over the epochs, of the best cell at each value of an axis",
    "path.png": "Accuracy over the values of each axis, the best of all others",
    "confusion.png": "Confusion matrix of the test set",
    "loss.png": "Minibatch loss of every cell over the steps",
    "weights.png": "Weights of the best cell",
}
FORMATS = {"train_loss": "#.6g", "val_loss": "#.6g", "gap": ".1e", "gradient": ".1e"}
FORMATS |= dict.fromkeys(("test_accuracy", "val_deviation", *(name for name in SCORES if "loss" not in name)), ".4f")
MOST_CLASSES = 100  # shown with their accuracy
MOST_CONFUSIONS = 12
PRINTED = 100  # rows of the table on paper, as in the page's style


def write(folder: str | Path) -> Path:
    """Write ``report.html`` from the files in the folder of a finished run; return its path.

    Args:
      folder: folder with the files of `jaxcls.artifacts.record.write` and, to be shown, the plots of
        `jaxcls.artifacts.plots.save`. If ``run.json`` has a ``command``, the report shows it as the run's command.

    Raises:
      FileNotFoundError: a file of the run is missing.
      ValueError: a file is damaged, or not one of a run.
      OSError: the report cannot be written; an earlier one is unchanged.

    Example:
      >>> import tempfile
      >>> from jaxcls import data, grid, sweep
      >>> splits, folder = data.standard(data.load_digits()), tempfile.mkdtemp()
      >>> result = sweep.run(splits, grid.Grid(lr=[0.1], reg=[0.0]), steps=20)
      >>> paths = record.write(folder, result, splits, {"command": "python mine.py"})
      >>> write(folder).name
      'report.html'
    """
    folder = Path(folder)
    run, pictures = record.read(folder), _pictures(folder)
    try:
        page = _page(run, pictures)
    except Exception as error:  # a run.json of another program can hold anything
        raise ValueError(f"{folder / 'run.json'} is not what a run wrote: {one_line(error)}") from None
    with replacing(folder / "report.html") as partial:
        partial.write_bytes(page.encode("utf-8", "replace"))  # JSON can hold half a surrogate pair
    return folder / "report.html"


def _page(run: Run, pictures: str) -> str:
    record = run.record
    kind = record.get("kind") or ("sweep" if _grid(run).lr else "probe")
    ran_on = {name: record[name] for name in ("device", "matmul_precision", "versions")}
    seconds = {name.removesuffix("_s"): f"{spent:.1f} s" for name, spent in record["timings"].items()}
    sections = {
        "Best cell": _best(run),
        "Test set": _test(run),
        "Pictures": pictures,
        "All cells": _cells(run),
        "Predict with the best cell": _predict(run),
        "Run it again": _code(record.get("command")),
        "Configuration": _facts(record.get("config", {})),
        "Data": _facts({name: value for name, value in record["data"].items() if name != "feature_names"}),
        "Ran on": _facts(ran_on | {"time": seconds}),
    }
    template = resources.files("jaxcls.artifacts").joinpath("report.html").read_text("utf-8")
    return Template(template).substitute(
        policy=_policy(template),
        title=escape(f"{kind.capitalize()} of {record['data']['name']}"),
        summary=escape(_summary(run)),
        sections="\n".join(
            f"<section>\n<h2>{heading}</h2>\n{body}\n</section>" for heading, body in sections.items() if body
        ),
    )


def _policy(template: str) -> str:
    """Content security policy: allow the page's own style, script and embedded images, and nothing else."""
    allowed = ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "img-src data:"]
    for tag in ("style", "script"):
        text = template.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        sha256 = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        allowed.append(f"{tag}-src 'sha256-{sha256}'")
    return "; ".join(allowed)


def _summary(run: Run) -> str:
    axes = str(_grid(run)).replace(" x ", " × ")
    diverged = len(run.record["diverged"])
    cells = f"{axes} = {len(run.table):,} cells" + (f", {diverged:,} diverged" if diverged else "")
    return f"{cells}; {run.record['timings']['total_s']:.1f} s on {run.record['device']}"


def _best(run: Run) -> str:
    if run.record["best"] is None:
        return "<p>Every cell diverged: try lower learning rates.</p>"
    select = run.record.get("select", "accuracy")
    beyond, ties = edges(_grid(run), run.table, select), len(tied(run.table, select))
    count = run.record["data"]["examples"]["val"]
    scored, train = run.record.get("train_scored"), run.record["data"]["examples"]["train"]
    part = f" Train is scored on {scored:,} of its {train:,} examples, at random." if scored and scored < train else ""
    equal = f"<p>{ties} cells tie at this validation score: {count} examples cannot tell them apart.</p>"
    alike, chosen = run.record.get("within_one_se", 0), run.record.get("chosen") == "one-se"
    simplest = "; the simplest of them was chosen" if chosen else ""
    within = f"<p>{alike} cells are within one standard error of the highest, on the same examples{simplest}.</p>"
    return "\n".join(
        [
            '<dl class="best">',
            *(f"<div>{_fact(name, value)}</div>" for name, value in run.record["best"].items()),
            "</dl>",
            *([equal] if ties > 1 else []),
            *([within] if chosen or alike > 1 else []),
            *(f"<p>{_edge(axis, values)}</p>" for axis, values in beyond.items()),
            f'<p class="note">Chosen by {escape(run.record["selection"])}. The test set was scored once.{part}</p>',
        ]
    )


def _test(run: Run) -> str:
    """Metrics with their intervals, the accuracy of each class, worst first, and the most frequent confusions."""
    scored, pairs = run.record.get("test"), run.confusion
    if not scored or pairs is None:
        return ""
    facts = {name: f"{each['value']:.4f} ({each['low']:.4f} to {each['high']:.4f})" for name, each in scored.items()}
    right, labels = pairs["label"] == pairs["predicted"], np.unique(pairs["label"])
    count = {label: pairs["count"][pairs["label"] == label].sum() for label in labels}
    correct = {label: pairs["count"][right & (pairs["label"] == label)].sum() for label in labels}
    worst = sorted(labels, key=lambda label: correct[label] / count[label])[:MOST_CLASSES]
    wrong = pairs[~right]
    wrong = wrong[np.argsort(-wrong["count"], kind="stable")][:MOST_CONFUSIONS]
    most = f", the {MOST_CLASSES} lowest of {len(labels):,}" if len(labels) > MOST_CLASSES else ", the lowest first"
    of_class = {str(label): f"{correct[label] / count[label]:.4f} of {count[label]:,}" for label in worst}
    confused = [f"{row['label']} as {row['predicted']} ({row['count']:,})" for row in wrong]
    more = {f"on {path}": _intervals(each) for path, each in run.record.get("more_tests", {}).items()}
    first = " of the first try" if "tries" in run.record else ""
    return "\n".join(
        [
            f'<p class="note">Scored once, by the best cell{first}; with 95 % intervals.</p>',
            _tries(run.record),
            _facts(facts),
            _named(more),
            f"<p>Most frequent confusions: {escape(', '.join(confused))}.</p>" if confused else "",
            f"<p>Accuracy of each class{most}:</p>",
            _named(of_class),
        ]
    )


def _tries(record: Mapping[str, Any]) -> str:
    """The mean and the deviation of each metric over several tries."""
    if "tries" not in record:
        return ""
    each = {name: f"{found['mean']:.4f}, deviation {found['deviation']:.4f}" for name, found in record["tries"].items()}
    config = record["config"]
    return f"<p>Mean of {config['tries']} tries, {config['shots']} examples of each class:</p>\n{_facts(each)}"


def _named(facts: Mapping[str, str]) -> str:
    """List of values by names of the user's data."""
    lines = [f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()]
    return "\n".join(['<dl class="facts">', *lines, "</dl>"]) if lines else ""


def _intervals(scored: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{name} {each['value']:.4f}" for name, each in scored.items())


def _edge(axis: str, values: Sequence[int | float]) -> str:
    message = edge(axis, values)
    return f"{message[0].upper()}{message[1:]} {' '.join(f'{x:g}' for x in values)}."


def _pictures(folder: Path) -> str:
    figures = [_figure(folder / name) for name in PICTURES if (folder / name).exists()]
    return "\n".join(['<div class="pictures">', *figures, "</div>"]) if figures else ""


def _figure(path: Path) -> str:
    content, caption = path.read_bytes(), PICTURES[path.name]
    if not (content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")):
        raise ValueError(f"{path} is damaged, expected a whole PNG")
    width, height = (int.from_bytes(content[at : at + 4]) for at in (16, 20))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    picture = f'<img src="{source}" width="{width}" height="{height}" alt="{caption}">'
    return f'<figure id="{path.stem}">\n{picture}\n<figcaption>{caption}</figcaption>\n</figure>'


def _cells(run: Run) -> str:
    """Table of all cells, which the page's script sorts."""
    columns = _columns(run)
    sort = {"rank": ' aria-sort="ascending"'}  # the order of `_columns`
    return "\n".join(
        [
            '<div class="scroll" tabindex="0" role="region" aria-label="All cells">',
            "<table>",
            "<thead><tr>",
            *(f'<th scope="col"{sort.get(name, "")}>{_words(name)}</th>' for name in columns),
            "</tr></thead>",
            "<tbody>",
            *map(_row, columns["rank"], zip(*columns.values(), strict=True)),
            "</tbody>",
            "</table>",
            "</div>",
            f'<p class="note print">On paper, the first {PRINTED} rows.</p>' if len(run.table) > PRINTED else "",
        ]
    )


def _columns(run: Run) -> dict[str, list[str]]:
    """Columns of ``results.csv`` to show: best cell first, rounded, empty for missing scores of diverged cells."""
    order, names = best_first(run.table["rank"]), run.table.dtype.names or ()
    columns = {name: [_cell(name, value) for value in run.table[name][order].tolist()] for name in names}
    diverged = np.flatnonzero(run.table["status"][order] == "diverged")
    for row, cell in zip(diverged, run.record["diverged"], strict=True):
        columns["status"][row] = f"diverged at step {cell['step']}"
    stopped = columns.pop("stopped_at", [])
    return columns | {
        "status": [
            f"{status} at step {step}" if status == "stopped" else status
            for status, step in itertools.zip_longest(columns["status"], stopped)
        ]
    }


def _cell(name: str, value: float | str) -> str:
    missing = value != value or (name in ("rank", "one_se") and value == 0)
    return "" if missing else _rounded(name, value)


def _row(rank: str, texts: Iterable[str]) -> str:
    mark = {"1": ' class="first"', "": ' class="diverged"'}.get(rank, "")
    return f"<tr{mark}>{''.join(f'<td>{escape(text)}</td>' for text in texts)}</tr>"


def _predict(run: Run) -> str:
    if run.best is None:
        return ""
    arrays: dict[str, Any] = {name: array for name, array in run.best.items() if name not in ("mean", "scale")}
    if arrays.keys() not in ({"W"}, {*two_layer.Params._fields}):
        return ""  # a custom model
    params = arrays["W"] if "W" in arrays else two_layer.Params(**arrays)
    data = run.record["data"]
    unit_length = data.get("unit_length", False)
    lines = record.reload_lines("best.safetensors", "numpy", params, data["classes"], unit_length=unit_length)
    note = (
        "In the run's folder, for raw features <code>X [N, d]</code>, an array of numpy or JAX;"
        " in torch: <code>torchref.load</code>."
    )
    return f'<p class="note">{note}</p>\n{_code(lines)}'


def _code(text: str | None) -> str:
    return f"<pre>{escape(text)}</pre>" if text else ""


def _facts(facts: Mapping[str, object]) -> str:
    """List of names and values, without the unset ones."""
    lines = [_fact(name, value) for name, value in facts.items() if value not in (None, []) and value is not False]
    return "\n".join(['<dl class="facts">', *lines, "</dl>"]) if lines else ""


def _fact(name: str, value: object) -> str:
    return f"<dt>{_words(name)}</dt><dd>{escape(_rounded(name, value))}</dd>"


def _rounded(name: str, value: object) -> str:
    """A value of this name in the table or the record, as text."""
    return format(value, FORMATS[name]) if name in FORMATS else _text(value)


def _words(name: str) -> str:
    return escape(name.replace("_", " "))


def _text(value: object) -> str:
    match value:
        case float():
            return f"{value:.6g}"
        case list():
            return ", ".join(map(_text, value))
        case dict():
            return ", ".join(f"{name} {_text(entry)}" for name, entry in value.items())
    return str(value)


def _grid(run: Run) -> Cells:
    return of_table(run.table, points=run.record.get("cells_are") == "points")
