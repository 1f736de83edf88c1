"""The page for people who do not type in a real browser: films dropped, the CT looked at and saved; no network."""

import threading

import pytest
from tests.integrations import films_app
from tests.integrations.films_app import until
from tests.integrations.samples import DEMO
from tests.report.browsing import NEEDS_BROWSER, find, requested

app, config_files, desk = films_app.app, films_app.config_files, films_app.desk
films, workflow = films_app.films, films_app.workflow
pytestmark = NEEDS_BROWSER
KEY = "key"


@pytest.fixture
def origin(app, desk, browser):
    """The origin of the running server; the browser shows the page."""
    running = app["server"].server(app["server"].create_app(desk, KEY, max_bytes=10_000_000))
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(f"http://127.0.0.1:{running.port}/enter/{KEY}")
    yield f"http://127.0.0.1:{running.port}"
    browser.get("about:blank")
    running.shutdown()
    thread.join()
    running.server_close()


def phase(browser, wanted):
    """Wait until the page is in a phase."""
    until(lambda: browser.find_elements("css selector", f"#stage > [data-phase='{wanted}']"))


def drop(browser, *files):
    """Drop files as a file manager does."""
    data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 200, "data": data})


def reconstruct(browser, films):
    """Drop the folder of the films and reconstruct; afterwards the browser is in the report."""
    drop(browser, films[0].parent)
    phase(browser, "ready")
    assert "in front (AP)" in find(browser, "#stage").text
    find(browser, "[data-post='/start']").click()
    phase(browser, "done")
    browser.switch_to.frame(find(browser, "iframe"))
    until(lambda: browser.find_elements("css selector", ".plane canvas"))
    until(lambda: not browser.find_elements("css selector", "[aria-busy=true]"))
    assert browser.execute_script("return self.origin") == "null", "the report has no rights of the page"


def leave(browser, origin):
    """Leave the report; nothing was requested from elsewhere, and nothing went wrong in the console."""
    browser.switch_to.default_content()
    asked_for = [url for url in requested(browser) if not url.startswith(f"{origin}/")]
    assert [url for url in asked_for if not url.startswith("blob:")] == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@pytest.mark.slow
def test_the_skeleton_turns_in_the_page(browser, origin, films, workflow, monkeypatch, overlay):
    monkeypatch.setattr(workflow, "config_files", [*workflow.config_files, str(overlay({"report": "full"}))])
    reconstruct(browser, films)
    until(lambda: find(browser, ".scene canvas").size["width"] > 100)
    leave(browser, origin)


def test_a_dropped_folder_of_two_films_becomes_a_ct_to_look_at_and_save(browser, origin, films):
    reconstruct(browser, films)
    leave(browser, origin)
    names = ["ct-dicom.zip", "ct.nii.gz", "report.html"]
    assert [link.get_attribute("href") for link in browser.find_elements("css selector", "a[download]")] == [
        f"{origin}/result/{name}?save" for name in names
    ]
    find(browser, "[data-post='/clear']").click()
    phase(browser, "empty")


def test_a_length_told_of_the_frontal_film_is_offered_for_the_lateral_one(browser, origin, desk):
    find(browser, "#files").send_keys("\n".join(str(DEMO / f"{view}.nii.gz") for view in ("frontal", "lateral")))
    phase(browser, "refused")
    entry = find(browser, "[name='source_to_detector_mm.frontal']")
    entry.send_keys("1200\t")
    assert find(browser, "[name='source_to_detector_mm.lateral']").get_attribute("value") == "1200"
    find(browser, "form button").click()
    until(lambda: desk.stage.answers)
    assert desk.stage.answers["source_to_detector_mm.lateral"] == "1200"


def test_too_large_files_are_refused_before_they_are_sent(browser, origin, desk, tmp_path):
    (tmp_path / "large.dcm").write_bytes(bytes(10_000_001))
    drop(browser, tmp_path / "large.dcm")
    until(lambda: find(browser, "#problem").text)
    assert "at most 10000000 are accepted" in find(browser, "#problem").text and desk.stage.films == []


def test_the_page_says_when_the_program_is_gone(browser, origin, films):
    browser.execute_script("window.fetch = () => Promise.reject(new TypeError('gone'))")
    drop(browser, films[0])
    until(lambda: find(browser, "#problem").text)
    assert "does not answer" in find(browser, "#problem").text
