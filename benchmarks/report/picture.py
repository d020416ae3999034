"""README's picture of a report: python -m benchmarks.report.picture --data ../shared/data.

Ranks all methods of VIFB as a user would, makes the report, and takes a picture of its leaderboard
and plots, in light and in dark. Of these alone: the images of the data set may not be shown here.
Needs the extra [report], playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

FUSCORE = [sys.executable, "-m", "fuscore_metric.cli"]
WIDTH, HEIGHT = 1240, 980
"""Of the window, in pixels."""
GAP = 16
# Nothing of the browser's own may reach for a network.
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def main() -> None:
    """Rank, report, take the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("report.webp"))
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    scenes = given.data / "VIFB"
    with TemporaryDirectory() as folder:
        run, page = Path(folder) / "run", Path(folder) / "report.html"
        sources = ["--ir", scenes / "ir", "--vis", scenes / "vis"]
        _fuscore("rank", *sources, "--methods-root", scenes / "fused", "--out", run)
        _fuscore("report", run, "-o", page, "--scenes", 0, "--title", "21 scenes of VIFB")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=given.chromium, args=CHROMIUM)
            both = [_picture(browser, page, scheme) for scheme in ("light", "dark")]
            browser.close()
    picture = Image.new("RGB", (2 * WIDTH + GAP, HEIGHT), "white")
    for number, one in enumerate(both):
        picture.paste(one, (number * (WIDTH + GAP), 0))
    picture.save(given.out, quality=80, method=6)
    print(f"{given.out}: {given.out.stat().st_size / 1000:.0f} kB")


def _fuscore(*arguments: object) -> None:
    subprocess.run([*FUSCORE, *map(str, arguments)], check=True)


def _picture(browser: Browser, page: Path, scheme: str) -> Image.Image:
    """The top of the page in light, the plots in dark."""
    size = {"width": WIDTH, "height": HEIGHT}
    view = browser.new_page(viewport=size, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    view.goto(page.as_uri())
    if scheme == "dark":
        view.evaluate("document.querySelector('#distribution').scrollIntoView()")
    taken = view.screenshot()
    view.close()
    return Image.open(io.BytesIO(taken)).convert("RGB")


if __name__ == "__main__":
    main()
