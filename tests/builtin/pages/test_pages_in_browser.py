"""Pages in a headless Chromium: with and without WebGL, wide and narrow, by keyboard, printed."""

import json

import chromium
import numpy as np
import pytest
import sample_pages

from nnunet_builtin.pages import bundling

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING),
    pytest.mark.skipif(not bundling.are_current(), reason=f"no bundles: {bundling.COMMAND}"),
]
WIDTHS = (1280, 390)
SHOWN = "document.querySelector('.viewer').dataset.shown === {}"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page whose texts are all hostile."""
    path = tmp_path_factory.mktemp("page") / "page ü.html"
    sample_pages.page().write(path)
    return path


@pytest.fixture(scope="module")
def browser():
    """A browser that renders WebGL in software."""
    found = chromium.Chromium()
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser_without_webgl():
    """A browser without WebGL."""
    found = chromium.Chromium(webgl=False)
    yield found
    found.close()


def _read_through(browser):
    """Open what can be opened, so that everything is drawn."""
    browser.evaluate(
        "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
    )
    browser.evaluate(
        "(async () => { for (const plot of document.querySelectorAll('.plot')) {"
        "plot.scrollIntoView({behavior: 'instant'});"
        "while (!plot.querySelector('.main-svg')) await new Promise((go) => setTimeout(go, 20));"
        "} })()"
    )


def _is_clean(browser):
    assert browser.complaints == []
    assert browser.requests == []
    assert browser.evaluate("document.title").startswith("Title </script>")  # no text became code
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")


def _names(browser, column=0):
    rows = "document.querySelector('tbody').rows"
    return browser.evaluate(f"Array.from({rows}, (row) => row.cells[{column}].textContent)")


@pytest.mark.parametrize("width", WIDTHS)
def test_plots_draw_and_nothing_complains(browser, page, width):
    browser.open(page, width)
    browser.wait(SHOWN.format("'0'"))
    _read_through(browser)
    drawn = browser.evaluate(
        "Array.from(document.querySelectorAll('.plot .canvas'), (each) => ["
        "each.querySelectorAll('.trace, .box, .violin').length,"
        "each.querySelector('.main-svg').getBoundingClientRect().width])"
    )
    assert len(drawn) == 3
    assert all(traces and 250 < wide <= width for traces, wide in drawn)
    assert browser.evaluate("document.querySelectorAll('.plot a').length") == 0
    _is_clean(browser)


def test_tables_sort_by_mouse_and_keyboard(browser, page):
    browser.open(page)
    browser.evaluate("document.querySelectorAll('th button')[1].click()")
    assert _names(browser, 1) == ["0.75", "0.50", "0.25", "0.10", "–"]
    assert browser.evaluate("document.querySelectorAll('th')[1].ariaSort") == "descending"
    browser.evaluate("document.querySelectorAll('th button')[0].focus()")
    browser.press("Enter")
    assert _names(browser)[1:] == ["a", "b9", "b10", "c"]  # 9 before 10
    assert browser.evaluate("document.querySelectorAll('th[aria-sort]').length") == 1
    browser.press("Tab")
    browser.press("Enter")
    browser.press("Enter")
    assert _names(browser, 1) == ["0.10", "0.25", "0.50", "0.75", "–"]  # nothing stays last
    browser.press("Tab")
    browser.press("Enter")
    assert _names(browser, 2) == ["10", "3", "2", "1", "–"]


def _choose(browser, select, value):
    browser.evaluate(
        f"(() => {{ const select = document.querySelector('{select}'); select.value = {value};"
        "select.dispatchEvent(new Event('change')); })()"
    )


def _pixels(browser):
    return browser.pixels(".viewer .screen").reshape(-1, 3)


def _coloured(browser, red, green, blue):
    """Return how many pixels have about the hue of a label over a bright image."""
    mixed = 0.45 * 255 + 0.55 * np.array([red, green, blue])
    return int((np.abs(_pixels(browser) - mixed).max(axis=1) < 24).sum())


@pytest.mark.parametrize("width", WIDTHS)
def test_the_viewer_shows_volume_and_labels(browser, page, width):
    browser.open(page, width)
    browser.wait(SHOWN.format("'0'"))
    outer, inner = (255, 159, 28), (63, 182, 255)
    assert _coloured(browser, *outer) > 2000
    assert _coloured(browser, *inner) > 1000
    _choose(browser, ".map", 1)
    assert browser.evaluate("document.querySelector('.viewer').dataset.map") == "prediction"
    assert _coloured(browser, *inner) == 0  # which misses it
    assert _coloured(browser, *outer) > 3000
    _choose(browser, ".map", -1)
    assert _coloured(browser, *outer) == 0
    assert (_pixels(browser).min(axis=1) > 200).sum() > 3000  # the image stays
    legend = browser.evaluate("document.querySelector('.legend').textContent")
    assert "outer" in legend
    assert sample_pages.HOSTILE in legend
    assert browser.evaluate("document.querySelectorAll('canvas').length") == 1
    assert (
        browser.evaluate("getComputedStyle(document.querySelector('.fallback')).display") == "none"
    )
    _is_clean(browser)


def test_the_viewer_changes_cases_and_moves_by_keyboard(browser, page):
    browser.open(page)
    browser.wait(SHOWN.format("'0'"))
    _choose(browser, ".case", 1)
    browser.wait(SHOWN.format("'1'"))
    browser.evaluate("document.querySelector('.viewer canvas').focus()")
    says = "document.querySelector('.viewer .status').textContent"
    for _ in range(7):
        browser.press("PageUp")
    browser.wait(f"{says}.includes('reference outer')")
    assert "prediction outer" in browser.evaluate(says)
    for _ in range(9):
        browser.press("PageUp")
    browser.wait(f"{says}.includes('reference nothing')")
    _is_clean(browser)


@pytest.mark.parametrize("width", WIDTHS)
def test_without_webgl_pictures_are_shown(browser_without_webgl, page, width):
    browser = browser_without_webgl
    browser.open(page, width, dark=True)
    _read_through(browser)
    browser.wait("document.querySelector('.viewer .status').textContent.includes('no WebGL')")
    sizes = browser.evaluate(
        "Array.from(document.querySelectorAll('.fallback img'), (i) => [i.naturalWidth, i.width])"
    )
    assert len(sizes) == 2
    assert all(natural > 300 and 200 < shown <= width for natural, shown in sizes)
    hidden = "['.screen', '.controls'].every((each) => !document.querySelector(each).offsetHeight)"
    assert browser.evaluate(hidden)
    _is_clean(browser)


def test_dark_and_light_have_readable_plots(browser_without_webgl, page):
    browser = browser_without_webgl
    for dark, bright in ((False, False), (True, True)):
        browser.open(page, dark=dark)
        _read_through(browser)
        colour = browser.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
        assert (min(json.loads(colour.replace("rgb(", "[").replace(")", "]"))) > 128) == bright


def test_on_paper_pictures_stand_for_volumes(browser, page):
    browser.open(page)
    browser.wait(SHOWN.format("'0'"))
    assert len(browser.pdf()) > 20_000
    browser._call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("document.querySelector('.fallback').offsetHeight") > 50
    assert not browser.evaluate("document.querySelector('.screen').offsetHeight")
    browser._call("Emulation.setEmulatedMedia", media="")
