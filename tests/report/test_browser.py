"""The page in a real browser: opened from disk, without a network, used as a reader would."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.report.runs import judged, scene_run, score_run
from trl_balcap.report import VerdictWriter
from trl_balcap.report.page import report_page
from trl_balcap.report.runs import find_runs
from trl_balcap.scenes.world import Scene, Thing

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="the report's page is not tried without Chromium: apt-get install chromium",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """A run of 6 steps with 4 images of 4 rollouts, and the scores of two captioners."""
    folder = tmp_path_factory.mktemp("report")
    scene_run(folder / "train", steps=range(10, 70, 10))
    score_run(folder / "before", faults=1.0)
    score_run(folder / "after", faults=0.0)
    runs = find_runs([folder / name for name in ("train", "before", "after")])
    (folder / "report.html").write_text(report_page(runs), encoding="utf-8")
    return folder / "report.html"


@pytest.fixture
def opened(browser) -> Iterator[Any]:
    """Opens pages and holds them to it: no message on the console, no request of a network."""
    wrong: list[str] = []
    contexts = []

    def open_page(path: Path, address: str = "", width: int = 1280, scheme: Any = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda asked: asked.url.startswith(("file:", "data:")) or wrong.append(asked.url),
        )
        page.goto(f"file://{path}{address}")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def scores(page: Page) -> list[float]:
    return [float(text) for text in page.locator(".item-score").all_text_contents() if text != "–"]


def count(page: Page) -> str:
    return page.locator("#count").inner_text()


def test_the_overview_draws_the_curves(opened, report):
    page = opened(report)
    titles = page.locator(".chart strong").all_inner_texts()
    assert titles[:5] == ["Precision", "Recall", "Linguistic", "b-CapScore", "Length ratio"]
    assert "Unscored, by reason" in titles
    assert page.locator(".chart canvas").count() == len(titles)
    label = page.get_by_role("figure").first.get_attribute("aria-label")
    assert re.match(r"Precision: precision from 0\.\d\d to 0\.\d\d, .*; steps 10 to 60\.", label)
    assert page.locator("main h2").all_inner_texts() == ["train", "Scores"]


def test_captions_come_worst_first_and_are_sorted_and_turned(opened, report):
    page = opened(report, "#captions")
    assert scores(page) == sorted(scores(page))
    page.select_option("#pick-sort", "advantage")
    page.click("#turn")
    assert page.locator("#turn").get_attribute("aria-label") == "highest first; turn around"
    shown = page.locator(".card.open .headline-score b").nth(1).inner_text()
    page.reload()  # the address keeps it
    assert page.locator("#pick-sort").input_value() == "advantage"
    assert page.locator(".card.open .headline-score b").nth(1).inner_text() == shown
    assert shown.startswith("+")


def test_captions_are_filtered_and_searched(opened, report):
    page = opened(report, "#captions")
    assert count(page) == "120 captions"  # 6 steps x 4 images x 4 rollouts, twice 12 scores
    page.select_option("#pick-show", "unscored")
    assert count(page) == "1 caption"
    assert page.locator(".card.open .why").inner_text() == "unscored: timeout"
    page.select_option("#pick-show", "all")
    page.select_option("#pick-reason", "timeout")
    assert count(page) == "1 caption"
    page.select_option("#pick-reason", "")
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("harmony colours")
    page.wait_for_function("() => document.getElementById('count').textContent !== '120 captions'")
    found = page.locator(".snippet").count()
    assert 0 < found < 120
    page.fill("#search", "no caption says this")
    assert count(page) == "0 captions"
    assert "Loosen the search" in page.locator("#detail").inner_text()


def test_captions_are_filtered_by_the_value_of_a_reward(opened, report):
    page = opened(report, "#captions")
    page.select_option("#pick-by", "precision_reward")
    page.fill("#bound-low", "0.4")
    page.fill("#bound-high", "0.6")
    page.select_option("#pick-sort", "precision_reward")
    shown = page.locator(".card.open .rewards .value").first
    assert 0.4 <= float(shown.inner_text()) <= 0.6
    page.click("#turn")  # the highest first
    assert 0.4 <= float(shown.inner_text()) <= 0.6
    found = int(count(page).split()[0])
    assert 0 < found < 120
    page.reload()  # the address keeps it
    assert count(page).startswith(str(found))
    page.select_option("#pick-by", "ratio")
    page.fill("#bound-low", "2")
    page.fill("#bound-high", "")
    assert all("outside the gate" in text for text in page.locator(".card.open").all_inner_texts())


def test_the_slider_moves_through_the_steps(opened, report):
    page = opened(report, "#captions?run=0")
    page.focus("#step")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#step").get_attribute("aria-valuetext") == "step 20"
    assert count(page) == "16 captions"
    page.locator("#list").focus()
    page.keyboard.press("]")
    assert set(page.locator(".where").all_text_contents()) == {"train · step 30"}


def test_keys_walk_the_list_and_the_rollouts(opened, report):
    page = opened(report, "#captions?run=0")
    selected = page.locator('.item[aria-selected="true"]')
    first = selected.get_attribute("data-key")
    page.keyboard.press("j")
    assert selected.get_attribute("data-key") != first
    page.keyboard.press("k")
    assert selected.get_attribute("data-key") == first
    before = page.locator(".card.open h3").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator(".card.open h3").inner_text() != before
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()


def test_everything_is_reached_by_the_keyboard(opened, report):
    """From the address bar to a lit sentence without a mouse."""
    page = opened(report)
    focused = "() => document.activeElement.id || document.activeElement.className"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "tab-overview"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "tab-captions"
    assert page.locator("#view-captions").is_visible()
    met = []
    for _ in range(40):
        page.keyboard.press("Tab")
        met.append(page.evaluate(focused))
        if met[-1].startswith("assertion"):
            break
    controls = ["search", "pick-sort", "turn", "pick-by", "bound-low", "bound-high", "pick-show"]
    places = [met.index(name) for name in (*controls, "step", "list")]
    assert places == sorted(places)
    page.keyboard.press("Enter")
    assert page.locator(".card.open .sentence.lit").count() == 1
    page.keyboard.press("3")
    assert page.locator("#view-compare").is_visible()


def test_an_assertion_lights_its_sentence(opened, report):
    page = opened(report, "#captions?show=wrong")
    button = page.locator(".assertion.wrong").first
    sentence = page.locator(f'.card.open [data-sentence="{button.get_attribute("data-of")}"]')
    assert "wrong" in (sentence.get_attribute("class") or "")
    button.hover()
    assert "lit" in (sentence.get_attribute("class") or "")
    page.mouse.move(0, 0)
    assert "lit" not in (sentence.get_attribute("class") or "")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert button.get_attribute("aria-pressed") == "false"


def test_a_link_leads_to_one_caption(opened, report):
    page = opened(report, "#captions?run=0&sort=step")
    page.keyboard.press("j")
    link = page.locator(".card.open .link").get_attribute("href")
    text = page.locator(".card.open .caption-text").inner_text()
    other = opened(report, link)
    assert other.locator(".card.open .caption-text").inner_text() == text
    narrow = opened(report, link, width=400)  # which shows the list first otherwise
    assert narrow.locator(".card.open .caption-text").is_visible()


def test_two_folders_of_scores_stand_side_by_side(opened, report):
    page = opened(report, "#compare")
    assert page.locator("#pick-a").input_value() == "1~score~0"
    assert page.locator("#pick-b").input_value() == "2~score~0"
    assert page.locator(".pair").count() == 12
    changes = [
        float(text.replace("−", "-").replace("±", ""))
        for text in page.locator(".pair-change b").all_inner_texts()
    ]
    assert changes == sorted(changes, key=abs, reverse=True)
    assert changes[0] > 0
    page.locator(".half .link").first.click()
    assert page.locator(".card.open").is_visible()
    page.go_back()
    page.select_option("#pick-b", "0~train")
    assert "no image in common" in page.locator("#view-compare").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1100, 2000])
def test_the_page_fits_and_its_text_stands_out(opened, report, width, scheme):
    page = opened(report, "", width, scheme)
    for view in ("overview", "captions", "compare"):
        page.click(f"#tab-{view}")
        if view == "captions" and width == 400:
            page.locator(".item").first.click()
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(FAINT) == []


def test_every_control_has_a_name(opened, report):
    page = opened(report, "#captions")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, a, [role=img], img')]
            .filter((node) => !(node.getAttribute('aria-label') || node.textContent.trim()
                || node.labels?.length || node.hasAttribute('alt')))
            .map((node) => node.outerHTML)"""
    )
    assert nameless == []


HOSTILE = [
    "<script>window.owned = 1</script>",
    '<img src=x onerror="window.owned = 1"> "><svg/onload=window.owned=1>',
    "</script><script>window.owned = 1</script>",
    "<!--<script>",
    "javascript:window.owned=1",
    "{{ 7 * 7 }} ${window.owned = 1} `",
    "A dog \u202egod A\u202c. \u2066\u202eright to left.",
    "\u200b" * 10_000 + "A dog.",
    "Z\u0351" + "\u0300" * 500,
    "a" * 10_000,
    "\u2028\u2029\0\x1b[31m",
]


def test_hostile_captions_are_text(opened, tmp_path):
    scene = Scene((Thing("red", "star", "large", "top", "left"),))
    rows = []
    for place, caption in enumerate(HOSTILE):
        row = judged("The top left shows a large red star.", scene)
        row |= {"completion": caption, "reference": caption, "prompt": caption}
        row["assertions"] = [{"text": caption, "correct": False, "pointable": True}]
        row["units"] = [{"text": caption, "covered": False}]
        row["reasons"] = {"recall_reward": caption}
        row["rewards"]["recall_reward"] = None
        row["extra"] = {caption: caption}
        rows.append(row | {"step": place, "split": "train", "id": caption[:40]})
    VerdictWriter(tmp_path / "verdicts").write(rows)
    (tmp_path / "report.html").write_text(report_page(find_runs([tmp_path])), encoding="utf-8")
    for width in (400, 1280):
        page = opened(tmp_path / "report.html", "#captions?sort=step&turn=1", width)
        for place in range(len(HOSTILE)):
            if width == 400:
                page.locator(".item").nth(place).click()
            else:
                page.keyboard.press("j")
            assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
            if width == 400:
                page.click(".back")
        assert page.evaluate("() => window.owned") is None
        assert page.locator("main script, main svg, main iframe, main object").count() == 0
        assert (
            page.locator("main img").count() == page.locator("main img[src^='data:image/']").count()
        )
        bare = page.evaluate("() => document.querySelector('main').textContent")
        assert "\u202e" not in bare
        assert "\u200b\u200b\u200b" not in bare
    page.select_option("#pick-sort", "step")
    page.fill("#search", "god")
    assert page.locator(".card.open .caption-text").inner_text().startswith("A dog U+202E")


def test_two_thousand_rollouts_open_in_two_seconds(opened, tmp_path):
    scene = Scene((Thing("red", "star", "large", "top", "left"),))
    row = judged("The top left shows a large red star. " * 17, scene)
    row["assertions"] = [
        {"text": "The top left shows a large red star.", "correct": True, "pointable": True}
    ] * 12
    rows = [
        row | {"step": k // 8, "split": "train", "id": str(k), "group": str(k // 8)}
        for k in range(2000)
    ]
    VerdictWriter(tmp_path / "verdicts").write(rows)
    text = report_page(find_runs([tmp_path]))
    # The thumbnails are bounded to 10 MB, 13.4 MB in base64, on top of the text.
    assert len(text.encode()) + 13.4e6 < 25e6
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    page = opened(tmp_path / "report.html", "#captions")
    page.locator(".card.open").wait_for()
    took = page.evaluate("() => performance.now()")
    assert count(page) == "2,000 captions"
    assert took < 2000


FAINT = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest('script, .unseen')) continue;
    const [one, other] = [light(rgb(getComputedStyle(node).color)), light(behind(node))];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) found.add(`${node.className || node.tagName}: ${contrast.toFixed(2)}`);
  }
  return [...found];
}"""
"""Texts whose contrast to what is behind them is below WCAG AA's 4.5 to 1."""


def test_data_of_the_page_is_json(report):
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>',
        report.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert found is not None
    data = json.loads(found[1])
    assert [run["name"] for run in data["runs"]] == ["train", "before", "after"]
