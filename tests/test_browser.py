"""The notebooks with live controls, in JupyterLab in a browser: they run, and the controls answer.

A cell far outside the window is not rendered: what went wrong is read from the notebook's model and
from what the kernel says, and a control is scrolled to before it is used.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from giblet.runs import load_or_train
from giblet.training import TrainingConfig

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = ("06_lesions", "07_regions")
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
NO_CHROMIUM = "needs Chromium: none on the path, install it to run these"
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PANEL = "window.jupyterapp.shell.currentWidget"
MINUTE = 60_000


@pytest.fixture(scope="module")
def lab(tmp_path_factory, full_simulated):
    """A JupyterLab over copies of the notebooks without their outputs; yields its address."""
    config = TrainingConfig(epochs=60)
    load_or_train(full_simulated, config, progress=False, width=1 / 16)  # the notebooks load it
    folder = tmp_path_factory.mktemp("lab")
    for name in NOTEBOOKS:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = []
                cell.execution_count = None
        nbformat.write(notebook, folder / f"{name}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--port={port}", "--ip=127.0.0.1", f"--notebook-dir={folder}"]
    command += ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    configured = configure(tmp_path_factory.mktemp("configuration"))
    settings = {"JUPYTER_CONFIG_DIR": str(configured), "GIBLET_DATA": str(full_simulated)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    server = subprocess.Popen(command, env=os.environ | settings, **quiet)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for_server(address)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def configure(folder: Path) -> Path:
    """No news from the web, whose pop-up would lie on the notebook."""
    (folder / "labconfig").mkdir()
    disabled = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (folder / "labconfig" / "page_config.json").write_text(json.dumps(disabled))
    return folder


def wait_for_server(address: str) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/api", timeout=1).read()
            return
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(f"no JupyterLab at {address}")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module", params=NOTEBOOKS)
def page(request, lab, browser):
    """A notebook after 'Run All Cells', scrolled to its explorer."""
    page = browser.new_page(viewport={"width": 1500, "height": 1400})
    page.notebook = request.param
    page.goto(f"{lab}/lab/tree/{page.notebook}.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=2 * MINUTE)
    kernel = f"{PANEL}?.sessionContext?.session?.kernel"
    page.wait_for_function(f"{kernel}?.status === 'idle'", timeout=2 * MINUTE)
    page.evaluate(f"""() => {{
        window.complaints = [];
        {kernel}.iopubMessage.connect((_, message) => {{
            const {{ header, content }} = message;
            if (header.msg_type === "error" || content.name === "stderr")
                window.complaints.push(content.text ?? content.traceback.join("\\n"));
        }});
        window.jupyterapp.commands.execute("notebook:run-all-cells");
    }}""")
    page.wait_for_function(f"""() => {{
        const cells = {PANEL}.context.model.toJSON().cells.filter(c => c.cell_type === "code");
        const failed = cells.some(c => c.outputs.some(o => o.output_type === "error"));
        const ended = cells.every(c => c.execution_count) && {kernel}.status === "idle";
        return failed || ended;
    }}""", timeout=10 * MINUTE)  # fmt: skip
    # JupyterLab greets a kernel over a comm that it cannot know before ipywidgets is imported
    page.evaluate("""() => {
        window.complaints = window.complaints.filter(text => !text.startsWith("No such comm"));
    }""")
    scroll_to_explorer(page)
    yield page
    page.close()


def code_cells(page) -> list[dict]:
    """As they would be saved now."""
    cells = page.evaluate(f"() => {PANEL}.context.model.toJSON().cells")
    return [cell for cell in cells if cell["cell_type"] == "code"]


def scroll_to_explorer(page) -> None:
    page.evaluate(f"""async () => {{
        const cells = {PANEL}.context.model.toJSON().cells;
        const shown = cells.findIndex(c => c.source.trim() === "explorer.widget");
        await {PANEL}.content.scrollToItem(shown, "start");
    }}""")
    page.wait_for_selector(FILM, timeout=MINUTE)
    page.locator(FILM).scroll_into_view_if_needed()


FILM = ".widget-image >> nth=0"
BARS = ".widget-image >> nth=1"
BRAIN = "img[alt^=cortex]"
REGIONS = ".widget-select-multiple select"


def picture(page, selector: str) -> str:
    """What an image shows: its bytes as text, once it has a source."""
    return page.locator(selector).evaluate(
        """async image => {
            while (!image.src) await new Promise(done => setTimeout(done, 50));
            const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
            return Array.from(bytes).join(",");
        }"""
    )


def wait_for_change(page, selector: str, before: str) -> str:
    for _ in range(600):
        after = picture(page, selector)
        if after != before:
            return after
        page.wait_for_timeout(100)
    raise AssertionError(f"{selector} did not change")


def handle(page, label: str):
    """The handle of a slider, of two the upper one."""
    return page.locator(".widget-hslider", has_text=label).locator(".noUi-handle").last


def screenshot(page, name: str) -> None:
    if "GIBLET_SCREENSHOTS" in os.environ:
        folder = Path(os.environ["GIBLET_SCREENSHOTS"])
        page.screenshot(path=folder / f"{page.notebook}_{name}.png")


def test_run_all_ends_without_a_complaint(page):
    page.wait_for_timeout(1000)
    screenshot(page, "run_all")
    cells = code_cells(page)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell["outputs"]):
        assert output["output_type"] != "error", output
        assert output.get("name") != "stderr", output


def test_controls_fit_the_page(page):
    """A handle beyond the right edge could not be reached."""
    edges = page.evaluate("""() => {
        const output = document.querySelector(".widget-hslider").closest(".jp-OutputArea-output");
        const parts = output.querySelectorAll(".noUi-handle, .widget-readout, select, img, audio");
        const right = element => element.getBoundingClientRect().right;
        return Array.from(parts).map(part => right(output) - right(part));
    }""")
    assert len(edges) > 8
    assert min(edges) >= 0


def test_slider_moves_by_keyboard(page):
    before = picture(page, FILM)
    handle(page, "held-out TR").focus()
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    wait_for_change(page, FILM, before)
    slider = page.locator(".widget-hslider", has_text="held-out TR")
    assert slider.locator(".widget-readout").inner_text() == "6"


def test_region_select_paints_the_brain(page):
    handle(page, "units").focus()
    page.keyboard.press("Home")  # no unit: where all are silenced no region shows
    page.locator(REGIONS).select_option(["Auditory"])
    page.wait_for_timeout(3000)
    brain, film, bars = (picture(page, selector) for selector in (BRAIN, FILM, BARS))
    page.locator(REGIONS).select_option(["Visual"])
    wait_for_change(page, BRAIN, brain)
    wait_for_change(page, FILM, film)
    wait_for_change(page, BARS, bars)
    screenshot(page, "region")


def test_strength_weakens_the_lesion(page):
    film = picture(page, FILM)
    bars = picture(page, BARS)
    handle(page, "strength").focus()
    page.keyboard.press("Home")
    wait_for_change(page, FILM, film)
    wait_for_change(page, BARS, bars)
    screenshot(page, "strength")
    page.keyboard.press("End")


def test_click_on_the_brain_lesions_a_region(page):
    select = page.locator(REGIONS)
    before = picture(page, BRAIN)
    select.select_option([])
    before = wait_for_change(page, BRAIN, before)
    box = page.locator(BRAIN).bounding_box()
    occipital = {"x": 0.265 * box["width"], "y": 0.5 * box["height"]}  # of the left medial view
    page.locator(BRAIN).click(position=occipital)
    wait_for_change(page, BRAIN, before)
    assert len(select.evaluate("s => Array.from(s.selectedOptions).map(o => o.value)")) == 1


def test_the_kernel_never_complained(page):
    """Also not in what the controls call, whose errors no cell shows."""
    assert page.evaluate("() => window.complaints") == []
    assert "Traceback" not in str(code_cells(page))
