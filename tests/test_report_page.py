"""The report as a browser shows it, where one is installed."""

from pathlib import Path

import pytest

REPORT = Path(__file__).parents[1] / "reports/comparison.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_loads_whole_by_itself_and_fits_the_screen(browser, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(REPORT.as_uri(), wait_until="load")
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    # Pictures outside the screen are decoded when they are asked for.
    assert page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_on_paper_no_picture_is_wider_than_the_page(browser):
    page = browser.new_page(viewport={"width": 700, "height": 900})
    page.emulate_media(media="print")
    page.goto(REPORT.as_uri(), wait_until="load")
    assert page.evaluate("Math.max(...[...document.images].map(i => i.getBoundingClientRect().right))") <= 700
    page.close()
