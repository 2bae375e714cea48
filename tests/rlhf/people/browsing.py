"""A browser that tests drive, where there is one."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def path_of_browser():
    """Where a browser is; the test is skipped where there is none, and fails where there has to be one.

    Debian's chromium is driven, as none comes with the packages.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        sentence = "expected a browser to drive (apt-get install chromium), got none"
        if os.environ.get("PGJAX_BROWSER") == "required":
            pytest.fail(sentence)
        pytest.skip(sentence)
    return found


def browsing():
    """A headless browser, as fixtures yield it."""
    found = path_of_browser()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])  # root has no sandbox
        yield browser
        browser.close()
