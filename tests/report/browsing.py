"""A real browser for tests of pages: headless Chromium, with WebGL in software."""

import json
import shutil

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
BROWSER, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
NEEDS_BROWSER = pytest.mark.skipif(not (BROWSER and DRIVER), reason="no Chromium with its driver on this machine")
ARGUMENTS = ["headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars", "force-prefers-reduced-motion"]
ARGUMENTS += ["use-angle=swiftshader", "enable-unsafe-swiftshader"]
ARGUMENTS += ["disable-renderer-backgrounding"]  # else a busy machine starves it


def started():
    """Start the browser, whose caller quits it."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ARGUMENTS:
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(60)
    return driver


def opened(browser, path, width=1200, height=900):
    """Open a page in a window of this size, and wait until it has drawn everything."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(path.as_uri())
    browser.execute_async_script(
        """const done = arguments[0];
        (function wait() { document.querySelector("[aria-busy=true]") ? setTimeout(wait, 5) : done(); })();"""
    )
    return browser


def requested(browser):
    """The addresses that the page has asked for since it was opened, without those that it carries itself."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]


def find(browser, selector):
    return browser.find_element("css selector", selector)


def choose(browser, words):
    """Click the box or button with this label."""
    box = browser.find_element("xpath", f"//label[normalize-space()='{words}']/input")
    browser.execute_script("arguments[0].click()", box)  # the page stays where it is
