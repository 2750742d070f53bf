"""The page of `catdog review` in a browser: a person with a keyboard, at a person's pace."""

import pytest
from conftest import listening
from review_fixtures import CORRECTIONS, application, recorded

pytest_plugins = ["review_fixtures"]
READY = "body:not([data-busy])"


@pytest.fixture
def address(session):
    """Where the page runs, on loopback."""
    with listening(application(session)) as found:
        yield found


@pytest.fixture
def opened(browser, address):
    """`opened(width)`: the page, when it shows a photograph. In the end nothing was said in the console."""
    pages, said, asked = [], [], []

    def open_(width: int = 1280):
        page = browser.new_page(viewport={"width": width, "height": 844})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector(READY)
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.close()
    # Chromium itself says there of a refusal that it was one.
    assert [text for text in said if not text.startswith("Failed to load resource")] == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_selector(READY)


def decisions() -> list[str]:
    return [row[1] for row in recorded()]


def shown(page) -> str:
    return page.get_attribute("#photograph", "src")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_person_decides_by_keys(opened, session, width):
    page = opened(width)
    items = [*session.pending.values()]
    of = len(items)
    assert page.inner_text("header p") == f"1 of {of} · Ctrl-C in the terminal keeps all"
    assert page.is_hidden("#last")
    # All that is needed stands on the screen.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [box.bounding_box() for box in page.locator(".stage, .choices button").all()]
    assert max(box["y"] + box["height"] for box in boxes) <= 844
    first = shown(page)
    press(page, "ArrowLeft")
    assert shown(page) != first
    press(page, "2", "N")
    words = ["as filed" if word == item.filed else word for word, item in zip(("cat", "dog"), items, strict=False)]
    assert decisions() == [*words, "neither"]
    assert page.inner_text(".decided") == "You said neither."
    assert page.inner_text(".filed") == f"It is filed as {items[2].filed}."
    page.wait_for_selector(".opinions dd >> nth=1")
    names = [text.split()[0] for text in page.locator(".opinions dt").all_inner_texts()]
    assert names == ["CNN", "Xception"]
    press(page, "s")
    assert page.inner_text("#progress") == f"5 of {of}"
    assert page.inner_text(".decided") == "You said neither."  # of what was skipped nothing is told
    press(page, "u", "z", "1", " ", "ArrowRight")
    assert page.inner_text("#progress") == f"6 of {of}"
    assert len(decisions()) == 4
    page.wait_for_function("[...document.images].every(image => image.naturalWidth)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_key_that_is_held_or_pressed_before_a_photograph_is_seen_decides_once(opened):
    page = opened()
    for _ in range(5):
        page.keyboard.down("1")
    page.keyboard.up("1")
    page.wait_for_selector(READY)
    assert len(decisions()) == 1
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.wait_for_selector(READY)
    assert len(decisions()) == 2
    press(page, "Control+1", "Alt+1", "x", "Enter")
    assert len(decisions()) == 2


def test_a_button_is_not_pressed_by_the_space_key_after_a_click(opened):
    page = opened()
    page.click("[data-decision='neither']")
    page.wait_for_selector(READY)
    press(page, " ")
    assert decisions() == ["neither"]
    assert page.inner_text("#progress").startswith("3 of ")
    page.focus("[data-decision='neither']")  # as by Tab
    press(page, " ")
    assert decisions() == ["neither"] * 2


def test_a_second_tab_is_told_and_moves_on(opened):
    first, second = opened(), opened()
    press(first, "n")
    press(second, "1")
    assert second.inner_text("#notice") == "That photograph was decided already: neither. Is this page open twice?"
    assert shown(second) == shown(first)
    press(second, "1")
    assert second.is_hidden("#notice")
    assert len(decisions()) == 2


def test_an_error_is_shown_and_the_same_photograph_stays(opened):
    page = opened()
    before = shown(page)
    CORRECTIONS.write_text("id,decision\nnonsense,dog\n")
    press(page, "1")
    assert "data/corrections.csv, line 2: the id should be" in page.inner_text("#problem")
    page.route("**/decision", lambda route: route.abort())
    press(page, "1")
    assert "start it again with `catdog review`" in page.inner_text("#problem")
    page.unroute("**/decision")
    CORRECTIONS.unlink()
    assert (shown(page), page.inner_text("#progress")[:4]) == (before, "1 of")
    press(page, "n")
    assert page.is_hidden("#problem")
    assert decisions() == ["neither"]


def test_at_the_end_each_change_can_be_undone(opened, session):
    page = opened(390)
    of = len(session.pending)
    for item in [*session.pending.values()][:-1]:
        press(page, "1" if item.filed == "cat" else "2")
    press(page, "n")
    assert page.is_hidden("#photograph")
    assert page.is_visible("text=All looked at")
    assert f"{of} decided: 0 changed, 1 set aside as neither" in page.inner_text("#lines")
    assert page.inner_text(".ending code") == "dvc repro"
    assert "→ neither" in page.inner_text(".many figcaption")
    page.wait_for_function("document.querySelector('.many img').naturalWidth")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    press(page, "n", "s")
    assert len(decisions()) == of
    page.click(".many button")
    page.wait_for_selector(READY)
    assert page.is_visible("#photograph")
    assert len(decisions()) == of - 1
