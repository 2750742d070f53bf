"""What `dvc plots` draws of this very repository, as a browser without a network shows it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

DRAWN = [plot for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] if isinstance(plot, dict)]


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("template") / "plots.html"
    subprocess.run([sys.executable, "-m", "catdog.commands.plots_page", str(path)], check=True)
    return path


@pytest.mark.parametrize("command", [["show"], ["diff", "HEAD"]], ids=["show", "diff"])
def test_every_plot_is_drawn_and_nothing_is_asked_of_the_network(browser, template, tmp_path, command):
    command = [sys.executable, "-m", "dvc", "plots", *command, "--out", str(tmp_path), "--html-template", str(template)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    said, asked = [], []
    # That the plots are written for a version before Vega's is but a warning.
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "index.html").as_uri(), wait_until="load")
    page.wait_for_function(
        f"document.querySelectorAll('.vega-embed canvas, .vega-embed svg.marks').length >= {len(DRAWN)}"
    )
    text = page.content()
    assert all(title in text for plot in DRAWN for title in [next(iter(plot.values()))["title"]])
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert page.evaluate("[...document.images].filter(image => image.naturalWidth).length") >= 10
    page.close()
