"""Screenshots of a real report page, for the README and docs/report.md.

    trl-balcap demo --steps 30 --out runs/demo
    python -m benchmarks.screenshots runs/demo/report.html

Needs Chromium. The same page gives the same pictures on a machine with the same fonts.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

OUT = Path(__file__).parents[1] / "docs" / "report"


def main(report: Path, out: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("There is no chromium here. apt-get install chromium brings it.")
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)

        def opened(address: str, width: int, height: int, scheme: str = "light") -> Page:
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.goto(f"file://{report.resolve()}{address}")
            return page

        opened("#overview", 1280, 800).screenshot(path=out / "overview.png")
        # A part where a caption has every kind of error.
        page = opened("#captions?split=train&show=vague&sort=spread", 1280, 860)
        page.locator(".assertion.wrong, .assertion.vague").first.hover()
        page.screenshot(path=out / "captions.png")
        page = opened("#captions?split=train&show=wrong&sort=wrong", 400, 800, "dark")
        page.locator(".item").nth(1).click()
        page.locator(".card.open").scroll_into_view_if_needed()
        page.screenshot(path=out / "phone.png")
        opened("#compare", 1280, 800).screenshot(path=out / "compare.png")
        browser.close()
    for path in sorted(out.glob("*.png")):
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    main(arguments.report, arguments.out)
