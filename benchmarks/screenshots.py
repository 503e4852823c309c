"""Pictures of the page for the documents, in docs/images: python benchmarks/screenshots.py

Runs `harken monitor --demo` in fast motion until the alarm, and takes them with the Chromium of this machine.
"""

from __future__ import annotations

import io
import shutil
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from harken.page.machines import key_of
from harken.page.server import PageServer
from harken.page.settings import PageSettings
from harken.service import demo
from harken.service.monitor import Monitor

IMAGES = Path(__file__).parents[1] / "docs" / "images"
#: bytes of a picture, at most; colours of it
MOST_BYTES, COLOURS = 60_000, 64
_DESK, _PHONE = {"width": 900, "height": 300}, {"width": 390, "height": 700}
#: name -> page (of all machines, or of one), and how it is seen
SHOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "machines": ("all", {"viewport": _DESK}),
    "machine": ("one", {"viewport": {"width": 900, "height": 760}}),
    "phone-german": ("one", {"viewport": _PHONE, "locale": "de-DE", "color_scheme": "dark"}),
    "help": ("help", {"viewport": {"width": 900, "height": 640}}),
}


def take(browser: Browser, url: str, key: str, folder: Path) -> list[Path]:
    """The pictures as files of a folder. key: of the machine that is shown."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"all": "/", "one": f"/machines/{key}?span=day", "help": "/help"}
    files = []
    for name, (page, options) in SHOTS.items():
        context = browser.new_context(**{"locale": "en-GB", "timezone_id": "UTC", **options})
        shown = context.new_page()
        shown.goto(url + pages[page])
        shown.wait_for_load_state("load")
        shown.wait_for_timeout(500)
        picture = Image.open(io.BytesIO(shown.screenshot())).convert("RGB")
        context.close()
        files.append(folder / f"page-{name}.png")
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(files[-1], optimize=True)
    return files


def main() -> None:
    """Take them of the demo."""
    demo.EVERY_S = 0.05
    running: list[Monitor] = []
    with TemporaryDirectory() as folder, sync_playwright() as play:
        show = demo.Demo(Path(folder) / "demo", lambda line: print(line, flush=True), patience_s=600.0,
                         started=running.append)  # fmt: skip
        thread = threading.Thread(target=show.run)
        thread.start()
        while not running:
            time.sleep(0.2)
        configuration = running[0].configuration
        page = PageServer(PageSettings(configuration.store, configuration.evidence_folder, port=0, replayed=True))
        page.start()
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shown = browser.new_page()
        shown.goto(page.url)
        shown.get_by_text("sounds different since").wait_for(timeout=300_000)
        shown.wait_for_timeout(5_000)
        key = key_of(configuration.monitor, demo.MACHINE)
        for file in take(browser, page.url, key, Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES):
            print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
        browser.close()
        running[0].stop()
        thread.join(30)
        page.stop()


if __name__ == "__main__":
    main()
