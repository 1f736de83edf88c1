"""Slices and index in a real browser: what is drawn is what numpy says, and nothing leaves the page."""

import base64
import re
import shutil
import zlib

import numpy as np
import pytest
from tests.report.browsing import NEEDS_BROWSER, choose, find, opened, requested

from scripts.report.index import write_index
from scripts.report.page import PAGE_FILE, write_light_page
from scripts.report.planes import as_displayed
from scripts.report.scales import SIGNED, SPREAD, SUPPORT, coloured

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
select = pytest.importorskip("selenium.webdriver.support.select")
pytestmark = NEEDS_BROWSER

SHAPE = (7, 10, 13)
AFFINE = np.array([[3.0, 0, 0, -9], [0, 2, 0, -8], [0, 0, 5, 100], [0, 0, 0, 1]])
AXES = {"axial": (2, 0, 1), "sagittal": (0, 1, 2), "coronal": (1, 0, 2)}
"""The axis cut through, and those across and up the picture."""
CENTRE = tuple(n // 2 for n in SHAPE)
PRESETS = {"Overview": (-200, 1600), "Lung": (-600, 1500), "Soft tissue": (40, 400), "Bone": (400, 1800)}
EVIL = "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 1'>" + 60 * "very_long_name"
RECORD = {"exam": EVIL, "warnings": [EVIL], "inputs": {"frontal": {"steps": [EVIL]}}, "geometry": {EVIL: EVIL}}


def volumes():
    rng = np.random.default_rng(1)
    hu = {"ct": rng.integers(-1024, 1500, SHAPE), "truth": rng.integers(-1024, 1500, SHAPE)}
    return hu | {"std": rng.integers(0, 250, SHAPE), "support": rng.integers(0, 101, SHAPE)}


VOLUMES = volumes()


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    images = np.random.default_rng(2).random((2, 2, 16, 16))
    write_light_page(folder, RECORD, {"measured": images[0], "reprojected": images[1]}, VOLUMES, AFFINE)
    return folder / PAGE_FILE


@pytest.fixture
def page(browser, report):
    """The report, freshly opened in a window of usual size."""
    return opened(browser, report)


def drawn(browser, part="ct"):
    """The pixels ``[rows, columns, 4]`` of the canvases of a part, by plane."""
    canvases = browser.execute_script(
        """return [...document.querySelectorAll(`[data-part=${arguments[0]}]`)].map((canvas) => {
            const { width, height } = canvas;
            const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
            return [canvas.closest("[data-plane]").dataset.plane, height, width, Array.from(pixels)];
        });""",
        part,
    )
    return {plane: np.array(pixels).reshape(rows, columns, 4) for plane, rows, columns, pixels in canvases}


def cut(plane, name="ct", at=CENTRE):
    axis = AXES[plane][0]
    return as_displayed(VOLUMES[name].take(at[axis], axis))


def grey(hu, level, width):
    return np.floor(np.clip((hu - (level - width / 2)) / width, 0, 1) * 255 + 0.5)


def assert_shows(browser, at, level=-200, width=1600):
    pictures = drawn(browser)
    assert set(pictures) == set(AXES)
    for plane, pixels in pictures.items():
        assert (pixels[..., :3] == grey(cut(plane, at=at), level, width)[..., None]).all(), plane
        assert (pixels[..., 3] == 255).all()


def pixel(browser, plane, row, column, click=True):
    """Move the mouse to the middle of a voxel, and click."""
    tile = find(browser, f"[data-plane={plane}] .tile")
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", tile)
    _, across, up = AXES[plane]
    x = (column + 0.5 - SHAPE[across] / 2) * tile.size["width"] / SHAPE[across]
    y = (row + 0.5 - SHAPE[up] / 2) * tile.size["height"] / SHAPE[up]
    actions = webdriver.ActionChains(browser, duration=0).move_to_element_with_offset(tile, round(x), round(y))
    (actions.click() if click else actions).perform()


def lay(page, name):
    """Choose the overlay of the slices."""
    select.Select(find(page, "#overlay")).select_by_visible_text(name)


def test_a_page_opens_quietly_and_asks_no_network_for_anything(page):
    lay(page, "uncertainty")
    assert page.get_log("browser") == []
    assert requested(page) == [page.current_url]


def test_names_from_outside_do_nothing(page):
    assert page.execute_script("return window.evil") is None
    assert find(page, "h1").text == EVIL
    assert page.title.startswith(EVIL)


def test_slices_are_those_of_the_volume_and_sliders_move_them(page):
    assert_shows(page, CENTRE)
    at = list(CENTRE)
    for plane, (axis, _, _) in AXES.items():
        slider = find(page, f"[data-plane={plane}] input")
        for key, index in (
            (webdriver.Keys.HOME, 0),
            (webdriver.Keys.ARROW_RIGHT, 1),
            (webdriver.Keys.END, SHAPE[axis] - 1),
        ):
            slider.send_keys(key)
            at[axis] = index
            assert_shows(page, at)


def test_the_window_presets_give_their_grey_values(page):
    for name, (level, width) in PRESETS.items():
        choose(page, name)
        assert_shows(page, CENTRE, level, width)
        ends = [f"{level - width // 2}".replace("-", "−"), f"{level + width // 2}"]
        assert find(page, "#grey").text.split()[-2:] == ends


def test_a_free_window_is_one_of_no_preset(page):
    for field, value in (("centre", 100), ("width", 250)):
        find(page, f"#{field}").clear()
        find(page, f"#{field}").send_keys(str(value))
    assert_shows(page, CENTRE, 100, 250)
    assert not page.find_elements("css selector", "[name=preset]:checked")


def test_a_click_moves_all_slices_through_the_voxel_under_it(page):
    at = list(CENTRE)
    for plane, row, column in (("axial", 0, 0), ("coronal", 12, 1), ("sagittal", 3, 9)):
        _, across, up = AXES[plane]
        pixel(page, plane, row, column)
        at[across], at[up] = SHAPE[across] - 1 - column, SHAPE[up] - 1 - row
        assert_shows(page, at)


def test_the_wheel_moves_one_slice_and_the_page_stays(page):
    tile = find(page, "[data-plane=coronal] .tile")
    pixel(page, "coronal", 0, 0, click=False)
    page.execute_async_script("setTimeout(arguments[0], 300)")  # the page has stopped scrolling
    above = page.execute_script("return scrollY")
    origin = webdriver.common.actions.wheel_input.ScrollOrigin.from_element(tile)
    webdriver.ActionChains(page).scroll_from_origin(origin, 0, 100).perform()
    assert_shows(page, (CENTRE[0], CENTRE[1] - 1, CENTRE[2]))
    assert page.execute_script("return scrollY") == above


def test_the_value_and_the_place_under_the_pointer_are_read_out(page):
    pixel(page, "axial", 9, 6, click=False)  # the most posterior row, the most left column
    u, v, w = 0, 0, CENTRE[2]
    ct, truth, std, support = (VOLUMES[name][u, v, w] for name in ("ct", "truth", "std", "support"))
    expected = f"L 9.0 · P 8.0 · S 130.0 mm  |  {ct} HU ± {std}  |  support {support} %"
    expected += f"  |  truth {truth} HU  |  error {ct - truth} HU"
    readout = page.execute_script("return document.getElementById('readout').textContent")
    assert readout == expected.replace("-", "−")


@pytest.mark.parametrize(
    "name, part, scale, limit", [("uncertainty", "std", SPREAD, 200), ("support by the films", "support", SUPPORT, 100)]
)
def test_an_overlay_lies_over_the_slices_when_it_is_asked_for(page, name, part, scale, limit):
    tile = find(page, "[data-plane=axial] .tile")
    without = tile.screenshot_as_png
    assert not any(element.is_displayed() for element in page.find_elements("css selector", "[data-overlay]"))
    lay(page, name)
    shown = {
        e.get_attribute("data-overlay") for e in page.find_elements("css selector", "[data-overlay]:not([hidden])")
    }
    overlay, key = (find(page, f"#viewer {tag}[data-overlay={part}]") for tag in ("canvas", "div"))
    assert shown == {part} and overlay.is_displayed() and key.is_displayed()
    assert tile.screenshot_as_png != without
    expected = coloured(cut("axial", part), scale, 0, limit)
    pixels = drawn(page, part)["axial"]
    assert (pixels[..., 3] == expected[..., 3]).all()
    opaque = expected[..., 3] == 255  # a canvas keeps other colours multiplied by their opacity, rounded
    assert (pixels[opaque] == expected[opaque]).all()
    find(page, "#opacity").send_keys(webdriver.Keys.HOME)
    assert overlay.value_of_css_property("opacity") == "0"
    lay(page, "none")
    assert tile.screenshot_as_png == without


def test_the_truth_has_the_same_window_and_the_error_its_own_colours(page):
    choose(page, "Bone")
    shown, errors = drawn(page, "truth"), drawn(page, "error")
    for plane in AXES:
        truth = cut(plane, "truth")
        assert (shown[plane][..., 0] == grey(truth, 400, 1800)).all()
        assert (errors[plane] == coloured(cut(plane) - truth, SIGNED, -500, 500)).all()


def test_voxels_have_their_true_proportions_on_the_screen(page):
    spacing = np.diag(AFFINE)
    for plane, (_, across, up) in AXES.items():
        size = find(page, f"[data-plane={plane}] [data-part=ct]").rect
        ratio = SHAPE[across] * spacing[across] / (SHAPE[up] * spacing[up])
        assert size["width"] / size["height"] == pytest.approx(ratio, rel=0.01)


def test_on_a_narrow_window_nothing_sticks_out(browser, report, tmp_path):
    write_index(tmp_path / "index.html", [{"exam": EVIL, "status": "failed", "error": EVIL}])
    for path in (report, tmp_path / "index.html"):
        for width in (360, 740):
            opened(browser, path, width)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_page(page, scheme):
    page.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    for selector in ("body", ".note", ".notice", ".warnings", ".details th"):
        colours = page.execute_script(
            """let element = document.querySelector(arguments[0]);
            const ink = getComputedStyle(element).color, paper = () => getComputedStyle(element).backgroundColor;
            while (paper().endsWith(", 0)")) element = element.parentElement;
            return [ink, paper()];""",
            selector,
        )
        one, other = sorted(luminance(colour) for colour in colours)
        assert (other + 0.05) / (one + 0.05) >= 4.5, (selector, colours)  # WCAG 2, AA


def luminance(colour):
    values = np.array([int(n) for n in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_on_paper_there_are_the_notice_and_the_slices_but_no_controls(page):
    choose(page, "Soft tissue")
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    printed = [pixels for pixels in pictures(pdf) if pixels.shape[:2] == (10, 7)]
    expected = grey(cut("axial"), 40, 400)
    assert any((pixels[..., 0] == expected).all() for pixels in printed)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = {name: find(page, name).value_of_css_property("display") for name in (".notice", ".controls", ".planes")}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert shown == {".notice": "table-header-group", ".controls": "none", ".planes": "grid"}


def pictures(pdf):
    """The images of a PDF that are packed without loss, ``[rows, columns, channels]``."""
    for head in re.finditer(rb"<<([^<>]*/Subtype /Image[^<>]*)>>\s*stream\r?\n", pdf):
        width, height = (int(re.search(rb"/%s (\d+)" % name, head[1])[1]) for name in (b"Width", b"Height"))
        if b"/FlateDecode" in head[1]:
            data = np.frombuffer(zlib.decompressobj().decompress(pdf[head.end() :]), np.uint8)
            yield data.reshape(height, width, -1)


def test_a_browser_without_decompression_is_told_so(browser, report):
    hide = {"source": "delete window.DecompressionStream"}
    added = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", hide)
    opened(browser, report)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    assert "no DecompressionStream" in find(browser, "[role=alert]").text
    assert not find(browser, ".planes").is_displayed()


def test_the_index_sorts_filters_and_leads_to_the_reports(browser, report, tmp_path):
    folder = "a b#c?d%&é'<"
    (tmp_path / folder).mkdir()
    shutil.copy(report, tmp_path / folder / "report.html")
    rows = [{"exam": f"case {n}", "status": "done", "seconds": seconds} for n, seconds in ((10, 9.5), (9, 10.5))]
    rows += [{"exam": "bad", "status": "failed", "error": "two frontal views"}]
    rows += [{"exam": "good", "status": "done", "seconds": 2, "folder": folder}]
    write_index(tmp_path / "index.html", rows)
    opened(browser, tmp_path / "index.html")

    def names():
        return browser.execute_script(
            "return [...document.querySelectorAll('tbody tr:not([hidden])')].map((row) => row.cells[0].textContent)"
        )

    assert names() == ["bad", "case 10", "case 9", "good"]
    seconds, exam = (find(browser, f"th:nth-child({n}) button") for n in (6, 1))
    seconds.click()
    assert names() == ["good", "case 10", "case 9", "bad"]
    seconds.click()
    assert names() == ["case 9", "case 10", "good", "bad"]
    exam.click()
    assert names() == ["bad", "case 9", "case 10", "good"]
    find(browser, "[name=words]").send_keys("Frontal")
    assert names() == ["bad"]
    find(browser, "[name=words]").clear()
    find(browser, "[name=words]").send_keys("good")
    browser.find_element("link text", "good").click()
    assert find(browser, "h1").text == EVIL
    assert browser.get_log("browser") == []


def test_a_thousand_exams_are_filtered_and_sorted_without_a_wait(browser, report, tmp_path):
    kinds = ({"status": "done", "warnings": 0}, {"status": "kept", "warnings": 3}, {"status": "failed", "error": "why"})
    rows = [
        {"exam": f"exam {n}", "folder": f"{n}", "reprojection_frontal": (n * 7919 % 1000) / 1000} | kinds[n % 3]
        for n in range(1000)
    ]
    for n in range(0, 1000, 50):
        shutil.copytree(report.parent, tmp_path / str(n))
    write_index(tmp_path / "index.html", rows)
    opened(browser, tmp_path / "index.html")

    def after(script):
        """How many rows are shown and the first of them, and the milliseconds until they were laid out."""
        return browser.execute_script(
            script
            + """;const rows = [...document.querySelectorAll("tbody tr:not([hidden])")];
            document.body.offsetHeight;
            return [rows.length, rows[0].cells[0].textContent, performance.now() - start];""",
        )

    def set_to(name, value):
        return f"""const start = performance.now(), field = document.querySelector("[name={name}]");
            field.value = "{value}"; field.dispatchEvent(new Event("input", {{ bubbles: true }}))"""

    sort = "const start = performance.now(); document.querySelector('th:nth-child(3) button').click()"
    steps = {
        sort: (1000, "exam 0"),
        set_to("status", "kept"): (333, "exam 679"),
        set_to("status", ""): (1000, "exam 0"),
    }
    steps |= {set_to("warnings", "none"): (334, "exam 0"), set_to("words", "exam 82"): (3, "exam 825")}
    for script, (count, first) in steps.items():
        *found, milliseconds = after(script)
        assert (count, first) == tuple(found)
        assert milliseconds < 5000  # a machine may be busy
    thumbnails = "return [...document.images].map((image) => image.complete && image.naturalWidth)"
    assert 288 in browser.execute_script(thumbnails)
    assert browser.get_log("browser") == []
