"""The volume in three dimensions in a real browser, with WebGL in software."""

import io

import numpy as np
import pytest
from PIL import Image
from tests.report.browsing import NEEDS_BROWSER, choose, find, opened, requested

from scripts.report.page import PAGE_FILE, write_page

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytestmark = NEEDS_BROWSER

SHAPE, AFFINE = (16, 16, 16), np.diag([4.0, 4, 4, 1])
AFFINE[:3, 3] = -30


def block(u, v, w):
    """A body of water with one block of bone in an eighth of it, high or low on each axis, and air around it."""
    hu = np.pad(np.zeros(np.subtract(SHAPE, 2)), 1, constant_values=-1000.0)
    hu[tuple(slice(9, 14) if high else slice(2, 7) for high in (u, v, w))] = 900
    return hu


CT, TRUTH = block(1, 1, 1), block(0, 1, 0)  # right, anterior, superior; and left, anterior, inferior


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volume")
    images = {"measured": np.ones((2, 8, 8)), "reprojected": np.ones((2, 8, 8))}
    write_page(
        folder, {"exam": "x"}, images, {"ct": CT, "std": np.full(SHAPE, 200), "support": 0 * CT, "truth": TRUTH}, AFFINE
    )
    return folder / PAGE_FILE


@pytest.fixture(scope="module")
def opened_once(browser, report):
    opened(browser, report, 700, 600)
    return browser.current_url


@pytest.fixture
def page(browser, opened_once):
    """The report, opened once for all tests, as it looks at first."""
    assert browser.current_url == opened_once
    yield browser
    browser.execute_script("document.querySelectorAll('form').forEach((form) => form.reset())")
    for name, value in {"threshold": "200", "zoom": "1"}.items():
        set_to(browser, name, value, "input")
    for name, value in {"cut": "", "from": "0 0"}.items():
        set_to(browser, name, value)
    browser.execute_script("document.querySelector('[value=bone]').dispatchEvent(new Event('change'))")


def seen(page):
    """The two halves of the picture, [rows, columns, RGB]."""
    scene = find(page, ".scene")
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", scene)
    scene = np.asarray(Image.open(io.BytesIO(scene.screenshot_as_png)).convert("RGB")).astype(int)
    middle = scene.shape[1] // 2
    return scene[:, :middle], scene[:, middle:]


def where(half):
    """Which quarter of a half is bright: up or down, and left or right; None if it is dark."""
    bright = half.sum(2) > 150
    bright[:30] = bright[-30:] = bright[:, :30] = bright[:, -30:] = False  # letters
    if bright.sum() < 100:
        return None
    rows, columns = np.nonzero(bright)
    height, width = bright.shape
    return ("up" if rows.mean() < height / 2 else "down", "left" if columns.mean() < width / 2 else "right")


def set_to(page, name, value, event="change"):
    page.execute_script(
        """const field = document.querySelector(`#volume [name=${arguments[0]}]`);
        field.value = arguments[1]; field.dispatchEvent(new Event(arguments[2], { bubbles: true }));""",
        name,
        value,
        event,
    )


def alike(one, other):
    """Whether two pictures differ by no more than the coarseness of a slow machine."""
    return np.abs(one - other).mean() < 0.5


def letters(page):
    return [find(page, f".half .mark.{side}").text for side in ("left", "right", "top", "bottom")]


def test_the_volume_opens_quietly_without_a_network(page):
    assert find(page, ".scene").is_displayed() and not find(page, ".stills").is_displayed()
    assert page.get_log("browser") == []
    assert requested(page) == [page.current_url]


@pytest.mark.parametrize("rendering", ["Bone", "Maximum intensity"])
def test_bone_is_where_it_is_seen_from_each_side_and_the_truth_turns_along(page, rendering):
    choose(page, rendering)
    views = {
        "0 0": ("RLSI", ("up", "left"), ("down", "right")),
        "90 0": ("APSI", ("up", "left"), ("down", "left")),
        "180 0": ("LRSI", ("up", "right"), ("down", "left")),
        "0 90": ("RLPA", ("down", "left"), ("down", "right")),
    }
    for view, (sides, reconstruction, truth) in views.items():
        set_to(page, "from", view)
        assert "".join(letters(page)) == sides
        assert tuple(map(where, seen(page))) == (reconstruction, truth), view


def test_skin_shows_around_the_bone(page):
    bare = seen(page)[0]
    choose(page, "Skin and bone")
    assert (seen(page)[0].sum(2) > 30).sum() > (bare.sum(2) > 30).sum()


def test_the_threshold_decides_what_is_bone(page):
    set_to(page, "threshold", "800", "input")
    small = (seen(page)[0].sum(2) > 150).sum()
    set_to(page, "threshold", "100", "input")
    assert (seen(page)[0].sum(2) > 150).sum() > small > 0


def test_what_lies_beyond_the_cross_hair_is_cut_away_and_follows_it(page):
    set_to(page, "cut", "2 1")
    assert tuple(map(where, seen(page))) == (None, ("down", "right"))
    find(page, "[data-plane=axial] input[type=range]").send_keys(webdriver.Keys.END)
    assert where(seen(page)[0]) == ("up", "left")


@pytest.mark.parametrize("name", ["std", "support"])
def test_an_overlay_colours_the_bone_of_the_reconstruction_alone(page, name):
    before, truth = seen(page)
    set_to(page, "overlay", name)
    after, still = seen(page)
    assert find(page, f"#volume [data-overlay={name}]").is_displayed()
    assert not alike(before, after)
    assert alike(still, truth)
    set_to(page, "opacity", "0")
    assert alike(seen(page)[0], before)


def test_keys_and_the_mouse_turn_and_zoom(page):
    scene = find(page, ".scene")
    front = seen(page)[0]
    scene.send_keys(6 * webdriver.Keys.ARROW_LEFT)
    assert letters(page)[:2] == ["RA", "LP"]
    scene.send_keys(webdriver.Keys.HOME)
    assert alike(seen(page)[0], front)
    scene.send_keys("+++")
    assert (seen(page)[0].sum(2) > 150).sum() > (front.sum(2) > 150).sum()
    scene.send_keys("---")
    webdriver.ActionChains(page, duration=0).click_and_hold(scene).move_by_offset(180, 0).release().perform()
    assert letters(page)[:2] == ["P", "A"]


def test_it_turns_until_the_reader_takes_over(page):
    scene = find(page, ".scene")
    choose(page, "Turn")
    page.execute_async_script(
        """const done = arguments[0], mark = document.querySelector(".half .mark.left");
        (function wait() { mark.textContent === "R" ? setTimeout(wait, 20) : done(); })();"""
    )
    scene.send_keys(webdriver.Keys.HOME)
    assert letters(page)[0] == "R" and not find(page, "[name=turn]").is_selected()


def test_on_paper_there_are_the_still_pictures(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = [find(page, selector).is_displayed() for selector in (".stills", ".scene")]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == [True, False]


def test_without_webgl_there_are_still_pictures_and_a_reason(browser, report):
    hide = """const real = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
            return kind.startsWith("webgl") ? null : real.call(this, kind, ...rest); };"""
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": hide})
    opened(browser, report)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    assert "no WebGL 2" in find(browser, "#volume [role=alert]").text
    assert find(browser, ".stills").is_displayed() and not find(browser, ".scene").is_displayed()
    assert find(browser, ".planes").is_displayed()
    assert browser.get_log("browser") == []


def test_on_a_phone_the_volumes_stand_one_above_the_other(browser, report):
    opened(browser, report, 360, 740)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    upper, lower = (half.rect for half in browser.find_elements("css selector", ".half"))
    assert upper["y"] + upper["height"] <= lower["y"] + 1
