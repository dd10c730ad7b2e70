"""Pictures of a comparison's page, for documents: light, dark, and as a phone shows it.

    python tools/page_pictures.py page.html FOLDER [--section accuracy]

writes ``light.png``, ``dark.png`` and ``phone.png``: the first screen, or one section (the id of
its element: accuracy, kinds, numbers, layers, pictures, flips, published, made). Needs Playwright
and the system's chromium, as ``make test-page`` does.
"""

from __future__ import annotations

import shutil
import sys
from argparse import ArgumentParser
from pathlib import Path

SCREENS = {
    "light": {"viewport": {"width": 1200, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1200, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


def take(page: Path, folder: Path, section: str | None = None, dense: float = 1.0) -> list[Path]:
    """The pictures that were written; ``dense``: dots for each pixel of the page."""
    from playwright.sync_api import sync_playwright

    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        sys.exit("there is no chromium: apt-get install chromium")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for name, settings in SCREENS.items():
            context = browser.new_context(**settings, device_scale_factor=dense)
            opened = context.new_page()
            opened.set_default_timeout(180_000)  # a large page on a busy machine
            opened.goto(page.resolve().as_uri())
            opened.wait_for_selector("html[data-ready]")
            # The bar would lie on a section that is longer than the screen.
            opened.evaluate("document.getElementById('bar').style.position = 'static'")
            opened.wait_for_timeout(500)  # pictures are being read
            path = folder / f"{name}.png"
            if section is None:
                opened.screenshot(path=path)
            else:
                opened.locator(f"#{section}").screenshot(path=path)
            written.append(path)
            context.close()
        browser.close()
    return written


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--section", help="the id of an element instead of the first screen")
    parser.add_argument("--dense", type=float, default=1.0, help="dots for each pixel (2: sharper)")
    asked = parser.parse_args()
    for one in take(asked.page, asked.folder, asked.section, asked.dense):
        print(one)
