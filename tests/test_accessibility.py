"""The pages for everybody: axe-core finds no violation, the keyboard suffices, pictures are told, paper is enough."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, listening
from PIL import Image
from review_fixtures import application
from test_demo import SAMPLES, judge, trained
from test_drift import compared, known, new
from test_report import content

from catdog.commands import demo, drift_page
from catdog.evaluation import report

pytest_plugins = ["review_fixtures"]
SCREENS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
NAMES = [f"{width}-{scheme}" for width, scheme in SCREENS]
FIXTURES = (content, trained)
# What has the focus: whether it is the page itself, how it shows that, and what it is called.
FOCUSED = """() => {
  const shown = document.activeElement.closest(".drop") ?? document.activeElement;
  const name = shown.textContent.trim().replace(/\\s+/g, " ");
  return [shown === document.body, getComputedStyle(shown).outlineStyle, name];
}"""


@pytest.fixture
def screens(browser) -> Iterator[Callable]:
    """`screens(address)`: the page at each width, in light and in dark; closed in the end."""
    pages = []

    def opened(address: str) -> Iterator:
        for width, scheme in SCREENS:
            page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            pages.append(page)
            page.goto(address)
            yield page

    yield opened
    for page in pages:
        page.close()


def check(page) -> None:
    """What axe-core finds is nothing, and each picture that is shown says what is to be seen."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page)
    assert found.violations_count == 0, f"{page.viewport_size}: {found.generate_report()}"
    shown = "[...document.images].filter(image => image.checkVisibility()).map(image => image.alt)"
    assert all(len(alt) > 12 for alt in page.evaluate(shown))


def stops(page) -> list[str]:
    """What Tab reaches, in that order; each shows that it has the focus."""
    reached: list[str] = []
    page.keyboard.press("Tab")
    while not (focused := page.evaluate(FOCUSED))[0]:
        assert focused[1] == "solid", focused[2]
        reached.append(focused[2])
        assert len(reached) < 60
        page.keyboard.press("Tab")
    return reached


# ---- the report -----------------------------------------------------------------------------------------------------


@pytest.fixture
def written_report(content, tmp_path) -> str:
    """Where a report with every picture is; most of the pictures are small."""
    content["pictures"] = {path.stem: path for path in (ROOT / "plots").glob("*.png")}
    for name, path in content["pictures"].items():
        with Image.open(path) as picture:
            picture.thumbnail((600, 600))
            picture.convert("RGB").save(small := tmp_path / f"{name}.png")
        content["pictures"][name] = small
    report.render(tmp_path / "report.html", **content)
    return (tmp_path / "report.html").as_uri()


def test_the_report(written_report, screens):
    for page in screens(written_report):
        check(page)
    assert len(page.query_selector_all("img")) == len(list((ROOT / "plots").glob("*.png")))


def test_a_report_of_drawings(content, tmp_path, screens):
    content["data"]["source"] = {"kind": "drawn"}
    report.render(tmp_path / "report.html", **content)
    for page in screens((tmp_path / "report.html").as_uri()):
        check(page)


def test_the_report_is_read_by_keyboard(written_report, screens):
    page = next(screens(written_report))
    reached = stops(page)
    assert len(reached) == page.locator(".card").count() + page.locator("a").count()


# ---- drift ----------------------------------------------------------------------------------------------------------


def write_drift(tmp_path: Path, *, sheet: bool, **about: object) -> str:
    Image.fromarray(np.full((400, 900, 3), 90, np.uint8)).save(tmp_path / "strangest.png")
    old, measured = known(), new(1, light=80)
    each = {"path": "a" * 64, "label": "dog", "probability": 0.91, "familiarity": 0.0012}
    said = {"drawn": False, "refused": [("a/b.txt", "not an image")], "copies": 2, "notes": ["The log kept no pixels."]}
    drift_page.render(
        tmp_path / "drift.html",
        findings=compared(measured, old=old),
        about=drift_page.About(version="catdog/3", source="new", when="2026-11-28T10:00:00+00:00", **said | about),
        old=old,
        new=measured,
        sheet=tmp_path / "strangest.png" if sheet else None,
        strangest=[each] * 3,
    )
    return (tmp_path / "drift.html").as_uri()


@pytest.mark.parametrize("sheet", [True, False])
def test_drift(tmp_path, screens, sheet):
    for page in screens(write_drift(tmp_path, sheet=sheet, drawn=not sheet)):
        check(page)
    assert page.locator("h1").inner_text()
    if sheet:
        assert "0.0012" in page.locator("img").get_attribute("alt")


# ---- the demo -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo_address(trained) -> Iterator[str]:
    with listening(
        demo.create([judge("cnn"), judge("xception", champion=True)], SAMPLES, hosts=["127.0.0.1"], trained=trained)
    ) as address:
        yield address


def test_the_demo_before_and_after_an_answer_and_a_refusal(demo_address, screens):
    for page in screens(demo_address):
        check(page)
        page.click("[data-number='1']")
        page.wait_for_selector("#summary:has-text('labelled dog')")
        check(page)
        assert page.get_attribute("#photograph", "alt").startswith("The test photograph, labelled dog")
        page.set_input_files("#file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no photograph"})
        page.wait_for_selector("#problem:visible")
        check(page)


def test_the_demo_is_used_by_keyboard(demo_address, screens):
    page = next(screens(demo_address))
    assert stops(page) == ["Choose a photograph, or drop or paste one here. It is not kept.", *("cat", "dog") * 2]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#summary:has-text('labelled cat')")


# ---- review ---------------------------------------------------------------------------------------------------------


def test_review_from_the_first_photograph_to_the_end(session, screens):
    ready = "body:not([data-busy])"
    with listening(application(session)) as address:
        for page in screens(address):
            page.wait_for_selector(ready)
            check(page)
            page.keyboard.press("n")
            page.wait_for_selector(ready)
            page.wait_for_selector(".opinions dd >> nth=1")
            check(page)
        assert "which you said is neither" in page.get_attribute("#last img", "alt")
        reached = " ".join(stops(page)[:5])
        assert re.sub(r"[^a-z ]", "", reached).split() == ["cat", "n", "neither", "dog", "s", "skip", "u", "undo"]
        while page.is_visible("#photograph"):
            page.keyboard.press("n")
            page.wait_for_selector(ready)
        page.wait_for_function("document.querySelector('.many img').naturalWidth")
        for page in screens(address):
            page.wait_for_selector(".ending:visible")
            check(page)


# ---- paper ----------------------------------------------------------------------------------------------------------


def test_on_paper_they_are_dark_on_white_and_as_wide(written_report, tmp_path, demo_address, browser):
    for address in (written_report, write_drift(tmp_path, sheet=False), demo_address):
        page = browser.new_page(viewport={"width": 700, "height": 900})
        page.goto(address)
        page.emulate_media(media="print", color_scheme="dark")
        grey = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
        assert np.median(grey) == 255
        assert grey.min() < 100
        assert page.evaluate("document.documentElement.scrollWidth") <= 700
        assert page.locator("input:visible, button:visible").count() == 0
        page.close()
