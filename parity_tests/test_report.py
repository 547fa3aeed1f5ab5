"""``report.html``: its contents, and its behaviour in a browser."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from jaxcls import two_layer
from jaxcls.artifacts import plots, record, report
from jaxcls.classifier import LINEAR
from jaxcls.data import Splits
from jaxcls.grid import Grid
from jaxcls.metrics import Outcomes
from jaxcls.result import History, SweepResult, Timings
from jaxcls.table import SCORES, empty_table

HOSTILE = (
    "<script>window.broken = 1</script>",
    "</script><script>window.broken = 1</script>",
    '"><img src="http://localhost:9/x.png" onerror="window.broken = 1">',
    "</pre></dd></table></style><svg onload='window.broken = 1'>",
    "<!-- ",
    "&lt;b&gt; &amp;",
    "$" + "title",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc\x07\n",
    "half a pair \ud800",
    "9",
)
COMMAND = "python sweep.py --data 'a <b> & \"c\".npz' --lr 0.1 1"
VOID = {"meta", "link", "img"}  # elements without an end tag
COLUMNS = ["lr", "reg", "seed", *(name.replace("_", " ") for name in SCORES), "rank", "one se", "status"]


@pytest.fixture(scope="module")
def hostile(digits: Splits) -> Splits:
    return dataclasses.replace(digits, class_names=HOSTILE, name=HOSTILE[0])


def made_up(splits: Splits, grid: Grid, diverged: Collection[int] = ()) -> SweepResult:
    """A sweep's result, quicker than a sweep; these rows of it diverged."""
    rng = np.random.default_rng(0)
    table = empty_table(grid)
    for name in SCORES:
        table[name] = rng.random(len(grid)) if "loss" not in name else 10 ** rng.uniform(-3, 3, len(grid))
    order = np.argsort(-table["val_accuracy"], kind="stable")
    for row in diverged:
        table[list(SCORES)][row] = (np.nan,) * len(SCORES)
        table["diverged_at"][row] = 8 + row
    ranked = [row for row in order if row not in diverged]
    table["rank"][ranked] = 1 + np.arange(len(ranked))
    D, H, C = splits.num_features, max(grid.hidden, default=0), splits.num_classes
    net = two_layer.Params(*map(np.ones, ((D, H), H, (H, C), C)))
    steps, accuracy = np.array([0, 10, 20]), rng.random((2, len(grid), 3))
    return SweepResult(
        grid,
        table,
        losses=rng.random((len(grid), 30)),
        history=History(steps, steps / 10, *accuracy) if grid.hidden else None,
        params=None if not ranked else net if grid.hidden else np.ones((D + 1, C)),
        test=Outcomes(*np.array([[0, 1], [0, 0], [0, 1]]), *np.full((2, 2), 0.5)) if ranked else None,
        timings=Timings(1.0, 2.0, 3.0, 6.0),
        classifier=LINEAR,
        mean=splits.mean,
        scale=splits.scale,
        num_scored=len(splits.train.y),
        class_names=splits.class_names,
    )


@pytest.fixture(scope="module")
def result(hostile: Splits) -> SweepResult:
    return made_up(hostile, Grid([20.0, 1e-7, 1.0, 3e3], [0.0, 0.5]), diverged=[1, 6])


@pytest.fixture(scope="module")
def finished(result: SweepResult, hostile: Splits, digits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, without its report."""
    folder = tmp_path_factory.mktemp("run")
    record.write(folder, result, hostile, {"command": COMMAND, "config": {"data": HOSTILE[2], HOSTILE[3]: [1.0, 0.1]}})
    plots.save(folder, result, digits)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(scope="module")
def net_folder(digits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    net = made_up(digits, Grid([0.3, 1.0], [1e-3], [3], [8, 4]))
    record.write(folder, net, digits, {})
    plots.save(folder, net, digits)
    return folder


class Document(HTMLParser):
    """An HTML file's elements with their attributes, and the text within each; fails where tags do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[int] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for k in self.open:
            self.texts[k] += data

    def all(self, wanted: str) -> list[str]:
        """The text of every element of this name."""
        return [text for (tag, _), text in zip(self.elements, self.texts, strict=True) if tag == wanted]

    def rows(self) -> list[list[str]]:
        """The table's cells, row by row."""
        cells, width = self.all("td"), len(self.all("th"))
        return [cells[k : k + width] for k in range(0, len(cells), width)]


def rewritten(folder: Path, **changes: Any) -> None:
    """Change what run.json says, under a fingerprint that is right."""
    path = folder / "run.json"
    record = json.loads(path.read_text()) | changes
    del record["sha256"]
    record["sha256"] = hashlib.sha256(json.dumps(record).encode()).hexdigest()
    path.write_text(json.dumps(record))


def test_a_page_is_well_formed_and_names_nothing_outside(folder: Path, net_folder: Path) -> None:
    for run in (folder, net_folder):
        page = Document(report.write(run))
        for tag, attributes in page.elements:
            assert not {"srcset", "action", "style", "background", "poster"} & attributes.keys()
            assert not [name for name in attributes if name.startswith("on")]
            for name in {"src", "href"} & attributes.keys():
                assert attributes[name].startswith("data:"), tag
        assert "url(" not in page.all("style")[0]
        assert "@import" not in page.all("style")[0]
        assert (len(page.all("script")), len(page.all("style"))) == (1, 1)
        assert len(page.all("script")[0].strip().splitlines()) <= 40


def test_what_comes_from_a_run_is_text_and_nothing_else(folder: Path) -> None:
    rewritten(folder, diverged=[{"step": 9}, {"step": HOSTILE[1]}])
    page = Document(report.write(folder))
    assert page.all("title") == page.all("h1") == [f"Sweep of {HOSTILE[0]}"]
    assert page.all("pre")[1] == COMMAND
    assert page.rows()[-1][-1] == f"diverged at step {HOSTILE[1]}"
    assert HOSTILE[2] in page.all("dd")
    assert HOSTILE[3] in page.all("dt")
    assert ", ".join(HOSTILE).replace("\ud800", "?") in page.all("dd")
    record = json.loads((folder / "run.json").read_text())
    tame = {"command": "-", "config": {"data": "-", "lr": 0}, "diverged": [{"step": 9}] * 2}
    rewritten(folder, **tame, data=record["data"] | {"name": "-", "classes": ["-"]})
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in Document(report.write(folder)).elements]


def test_the_table_has_a_row_per_cell_best_first_and_no_scores_of_diverged_cells(
    folder: Path, result: SweepResult
) -> None:
    page = Document(report.write(folder))
    assert page.all("th") == COLUMNS
    rows, table = page.rows(), result.table
    order = sorted(range(len(table)), key=lambda k: (table["rank"][k] == 0, table["rank"][k], k))
    assert len(rows) == len(order) == 8
    for row, k in zip(rows, order, strict=True):
        assert [float(text) for text in row[:3]] == [table[axis][k] for axis in ("lr", "reg", "seed")]
        if table["rank"][k]:
            for name, text in zip(SCORES, row[3 : 3 + len(SCORES)], strict=True):
                within = {"rel": 1e-5} if "loss" in name else {"abs": 5.1e-5}  # of what 4 decimals, 6 digits leave
                assert float(text) == pytest.approx(table[name][k], **within)
            assert row[-3::2] == [str(table["rank"][k]), "ok"]
        else:
            assert row[3:] == [""] * (len(SCORES) + 2) + [f"diverged at step {table['diverged_at'][k]}"]


def test_the_best_cell_stands_with_its_scores_and_the_boundary_it_lies_on(folder: Path, result: SweepResult) -> None:
    page, cell = Document(report.write(folder)), result.grid.cells()[result.best]
    shown = dict(zip(page.all("dt"), page.all("dd"), strict=True))
    assert {axis: float(shown[axis]) for axis in ("lr", "reg", "seed")} == cell
    assert shown["test accuracy"] == f"{result.test_accuracy:.4f}"
    assert [axis for axis in cell if f"The best {axis} is the smallest on its axis" in page.all("main")[0]] == list(
        result.grid.beyond(result.best)
    )


def test_a_net_has_its_column_its_history_and_its_lines(net_folder: Path) -> None:
    page = Document(report.write(net_folder))
    assert page.all("th") == ["lr", "reg", "hidden", *COLUMNS[2:]]
    assert {row[2] for row in page.rows()} == {"4", "8"}
    names = [attributes["id"] for tag, attributes in page.elements if tag == "figure"]
    assert names == ["heatmap", "history", "path", "confusion", "loss", "weights"]
    (lines,) = page.all("pre")  # without a command in run.json
    assert 'p["W2"]' in lines


def test_the_lines_to_predict_are_those_that_a_run_prints(folder: Path, result: SweepResult) -> None:
    assert Document(report.write(folder)).all("pre")[0] == record.reload_lines(
        "best.safetensors", "numpy", result.params, result.class_names
    )


def test_pictures_are_those_that_stand_in_the_folder(folder: Path) -> None:
    def pictures() -> list[str]:
        return [attributes["id"] for tag, attributes in Document(report.write(folder)).elements if tag == "figure"]

    assert pictures() == ["heatmap", "path", "confusion", "loss", "weights"]
    (folder / "loss.png").unlink()
    assert pictures() == ["heatmap", "path", "confusion", "weights"]
    for path in folder.glob("*.png"):
        path.unlink()
    assert pictures() == []
    assert "Pictures" not in Document(folder / "report.html").all("h2")


def test_a_run_that_diverged_everywhere_has_a_report(digits: Splits, tmp_path: Path) -> None:
    record.write(tmp_path, made_up(digits, Grid([1.0], [0.0]), diverged=[0]), digits, {})
    page = Document(report.write(tmp_path))
    assert "Every cell diverged" in page.all("main")[0]
    assert page.all("pre") == []
    assert [row[3:] for row in page.rows()] == [[""] * (len(SCORES) + 2) + ["diverged at step 8"]]


def test_the_same_run_makes_the_same_bytes(folder: Path) -> None:
    elsewhere = shutil.copytree(folder, folder.with_name("elsewhere"))
    first = report.write(folder).read_bytes()
    assert report.write(folder).read_bytes() == first
    assert report.write(str(elsewhere)).read_bytes() == first


def test_a_report_that_cannot_be_finished_leaves_the_earlier_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = report.write(folder).read_bytes()
    (folder / "loss.png").unlink()
    names = sorted(os.listdir(folder))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"report.html cannot be written: No space left on device$"):
        report.write(folder)
    assert sorted(os.listdir(folder)) == names
    assert (folder / "report.html").read_bytes() == before


@pytest.mark.parametrize("name", ["run.json", "results.csv", "best.safetensors", "heatmap.png"])
def test_a_damaged_run_is_rejected_with_one_line(name: str, folder: Path) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-2])
    with pytest.raises(ValueError, match=rf"^\S*{name} is damaged, .*$"):
        report.write(folder)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("name", ["run.json", "results.csv", "best.safetensors"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"^\S*{name}: no such file, expected what a finished run left$"):
        report.write(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"best": 5},
        {"best": {"lr": [[]]}, "selection": None},
        {"data": []},
        {"diverged": []},
        {"timings": {"total_s": "long"}},
        {"config": 3},
        {"command": ["python"]},
    ],
    ids=str,
)
def test_a_record_of_something_else_is_rejected_with_one_line(changes: dict[str, Any], folder: Path) -> None:
    rewritten(folder, **changes)
    with pytest.raises(ValueError, match=r"^\S*run.json is not what a run wrote: .*$"):
        report.write(folder)
    assert not (folder / "report.html").exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium that CHROMIUM names, or one on the PATH, or playwright's own; else the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(executable_path=path)
        except Error:
            if path:
                raise
            pytest.skip("needs Chromium: name one in CHROMIUM, or have `playwright install chromium` download it")
        yield found
        found.close()


@contextlib.contextmanager
def opened(browser: Browser, path: Path, **how: Any) -> Iterator[Page]:
    """The file in a browser, which may request nothing else and has nothing to complain about."""
    seen: list[str] = []
    with browser.new_context(**how) as context:
        page = context.new_page()
        page.route("**/*", lambda route: route.continue_() if route.request.url == path.as_uri() else route.abort())
        page.on("request", lambda request: seen.append(request.url))
        page.on("console", lambda message: seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(str(error)))
        page.goto(path.as_uri())
        yield page
    unexpected = [what for what in seen if what != path.as_uri() and not what.startswith("data:")]
    assert not unexpected, "\n".join(unexpected)


def column(page: Page, k: int) -> list[str]:
    """The cells of a column, from top to bottom."""
    return page.locator(f"tbody td:nth-child({k + 1})").all_text_contents()


def ordered(texts: list[str], order: str) -> list[str]:
    """The same sorted as numbers, words as words; what is missing last either way."""

    def key(text: str) -> list[float | str]:
        return [word if word.isalpha() else float(word) for word in text.split()]

    return sorted(filter(None, texts), key=key, reverse=order == "descending") + [""] * texts.count("")


def sorted_by(page: Page) -> dict[str, str | None]:
    """The columns that say they are sorted, and how."""
    return {head.inner_text(): head.get_attribute("aria-sort") for head in page.locator("th[aria-sort]").all()}


def test_a_click_on_a_column_sorts_by_it_and_another_reverses_it(folder: Path, browser: Browser) -> None:
    with opened(browser, report.write(folder)) as page:
        assert sorted_by(page) == {"rank": "ascending"}
        for k, name in enumerate(COLUMNS):
            cells = column(page, k)
            for order in ("ascending", "descending", "ascending"):
                page.locator("th").nth(k).locator("button").click()
                assert sorted_by(page) == {name: order}
                assert column(page, k) == ordered(cells, order)
        rows = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]
    assert sorted(rows) == sorted(Document(folder / "report.html").rows())  # cells move with their rows


def test_the_keyboard_sorts_as_well(folder: Path, browser: Browser) -> None:
    with opened(browser, report.write(folder)) as page:
        cells = column(page, 5)
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent") == "val loss":
                break
        for key, order in (("Enter", "ascending"), ("Space", "descending")):
            page.keyboard.press(key)
            assert sorted_by(page) == {"val loss": order}
            assert column(page, 5) == ordered(cells, order)
            assert page.evaluate("document.activeElement.textContent") == "val loss"


def test_pictures_are_there(folder: Path, net_folder: Path, browser: Browser) -> None:
    for run, count in ((folder, 5), (net_folder, 6)):
        with opened(browser, report.write(run)) as page:
            sizes = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
            stated = page.evaluate("[...document.images].map(i => [i.getAttribute('width'), i.getAttribute('height')])")
            assert len(sizes) == count
            assert [[str(side) for side in size] for size in sizes] == stated
            assert min(map(min, sizes)) > 0


@pytest.mark.parametrize("policy", [True, False], ids=["with its policy", "without"])
def test_hostile_names_are_shown_and_run_nothing(policy: bool, folder: Path, browser: Browser) -> None:
    path = report.write(folder)
    if not policy:  # so that nothing but the escaping holds them
        path.write_text(re.sub("<meta http-equiv.*>", "", path.read_text("utf-8")), "utf-8")
    with opened(browser, path) as page:
        assert page.evaluate("typeof window.broken") == "undefined"
        assert page.title() == f"Sweep of {HOSTILE[0]}"
        for name in (*HOSTILE[:7], COMMAND):
            assert name in page.inner_text("main")


def test_script_and_outside_request_of_an_unescaped_name_would_be_stopped_and_seen(
    folder: Path, browser: Browser
) -> None:
    path = report.write(folder)
    path.write_text(path.read_text("utf-8").replace("<main>", f"<main>{HOSTILE[0]}{HOSTILE[2]}"), "utf-8")
    with (
        pytest.raises(AssertionError, match=r"(?s)Content Security Policy.*script.*img"),
        opened(browser, path) as page,
    ):
        assert page.evaluate("typeof window.broken") == "undefined"
    path.write_text(re.sub("<meta http-equiv.*>", "", path.read_text("utf-8")), "utf-8")
    with pytest.raises(AssertionError, match=re.escape("http://localhost:9/x.png")), opened(browser, path) as page:
        assert page.evaluate("window.broken") == 1


def test_without_javascript_it_reads_best_cell_first(folder: Path, browser: Browser) -> None:
    with opened(browser, report.write(folder), java_script_enabled=False) as page:
        rows = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]
        assert rows == Document(folder / "report.html").rows()
        assert page.locator("button").count() == 0


@pytest.mark.parametrize("width", [400, 1400])
def test_no_width_needs_scrolling_sideways(width: int, folder: Path, net_folder: Path, browser: Browser) -> None:
    for run in (folder, net_folder):
        with opened(browser, report.write(run), viewport={"width": width, "height": 800}) as page:
            assert page.evaluate("document.documentElement.scrollWidth") == width


def test_ten_thousand_cells_are_sorted_while_one_waits_and_a_hundred_printed(
    digits: Splits, tmp_path: Path, browser: Browser
) -> None:
    many = made_up(digits, Grid(np.geomspace(1e-6, 1, 100).tolist(), np.geomspace(1e-6, 1, 100).tolist()))
    record.write(tmp_path, many, digits, {})
    with opened(browser, report.write(tmp_path)) as page:
        for k in (5, 6):  # the second time rows are in an order of their own
            head = f"document.querySelectorAll('th button')[{k}]"
            spent = page.evaluate(
                f"() => {{ const t = performance.now(); {head}.click(); return performance.now() - t }}"
            )
            assert spent < 3000  # milliseconds; a tenth of a second alone, seven in quadratic time
        shown = column(page, 6)
        assert shown == ordered(shown, "ascending")
        page.emulate_media(media="print")
        assert page.locator("tbody tr:visible").count() == 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_either_colour_scheme_has_the_contrast_that_wcag_asks_for(scheme: str, folder: Path, browser: Browser) -> None:
    with opened(browser, report.write(folder), color_scheme=scheme) as page:
        style = "getComputedStyle(document.documentElement)"
        colours = page.evaluate(
            f"['ink', 'faint', 'paper', 'panel', 'mark'].map(c => {style}.getPropertyValue('--' + c))"
        )
    ink, faint, paper, panel, mark = map(luminance, colours)
    assert (paper < 0.1) == (scheme == "dark")
    for text, ground in ((ink, paper), (faint, paper), (ink, panel), (faint, panel), (ink, mark)):
        assert (max(text, ground) + 0.05) / (min(text, ground) + 0.05) >= 4.5


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as WCAG 2 defines it."""
    srgb = np.array(list(bytes.fromhex(colour.strip().lstrip("#")))) / 255
    return float(np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])
