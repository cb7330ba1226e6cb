"""Notebook 06 in JupyterLab in a real browser: it runs, and its controls answer the keyboard and the mouse."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from giblet.training import TrainingConfig
from giblet.training.recipe import load_or_train

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "06_lesions.ipynb"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: none on the path, install it to run these"),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory, full_simulated):
    """A JupyterLab with the cells of notebook 06 up to the explorer; yields its address."""
    load_or_train(full_simulated, TrainingConfig(epochs=60), progress=False, width=1 / 16)  # the notebook loads it
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = next(i for i, cell in enumerate(notebook.cells) if cell.source.strip() == "explorer.widget")
    notebook.cells = [cell for cell in notebook.cells[: shown + 1] if cell.cell_type == "code"]
    for cell in notebook.cells:
        cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, folder / "lesions.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1"]
    command += [f"--notebook-dir={folder}", "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    settings = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "GIBLET_DATA": str(full_simulated)}
    server = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=1).read()
                break
            except OSError:
                time.sleep(0.5)
        yield f"{address}/lab/tree/lesions.ipynb?reset"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def page(lab):
    """The notebook, run to its end."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1500, "height": 1400})
        page.goto(lab)
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        kernel = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel"
        page.wait_for_function(f"{kernel}?.status === 'idle'", timeout=60_000)
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
        page.wait_for_selector(".widget-image", timeout=180_000)
        yield page
        browser.close()


def picture(page, selector: str) -> str:
    """What an image shows: its source as text, once it has one."""
    page.wait_for_function(f"document.querySelector('{selector}')?.src", timeout=20_000)
    return page.eval_on_selector(
        selector,
        """async image => {
            const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
            return Array.from(bytes).join(",");
        }""",
    )


def wait_for_change(page, selector: str, before: str) -> str:
    for _ in range(100):
        after = picture(page, selector)
        if after != before:
            return after
        page.wait_for_timeout(100)
    raise AssertionError(f"{selector} did not change")


FILM, BRAIN = "img.widget-image", "img[alt^=cortex]"


def screenshot(page, name: str) -> None:
    if "GIBLET_SCREENSHOTS" in os.environ:
        page.locator(".widget-image").first.scroll_into_view_if_needed()
        page.screenshot(path=str(Path(os.environ["GIBLET_SCREENSHOTS"]) / f"{name}.png"))


def test_slider_moves_by_keyboard(page):
    screenshot(page, "before")
    before = picture(page, FILM)
    slider = page.locator(".widget-hslider .noUi-handle").first
    slider.focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    wait_for_change(page, FILM, before)
    assert page.locator(".widget-readout").first.inner_text() == "6"


def test_region_select_paints_the_brain(page):
    brain, film = picture(page, BRAIN), picture(page, FILM)
    page.locator(".widget-select-multiple select").select_option(["Visual"])
    wait_for_change(page, BRAIN, brain)
    wait_for_change(page, FILM, film)
    page.wait_for_timeout(1500)
    screenshot(page, "after")


def test_click_on_the_brain_lesions_a_region(page):
    select = page.locator(".widget-select-multiple select")
    select.select_option([])
    page.wait_for_timeout(500)
    before = picture(page, BRAIN)
    box = page.locator(BRAIN).bounding_box()
    occipital = {"x": 0.265 * box["width"], "y": 0.5 * box["height"]}  # of the left medial view
    page.locator(BRAIN).click(position=occipital)
    wait_for_change(page, BRAIN, before)
    assert len(select.evaluate("s => Array.from(s.selectedOptions).map(o => o.value)")) == 1


def test_nothing_went_wrong(page):
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    assert not re.search("Error|Traceback", page.locator(".jp-Notebook").inner_text())
