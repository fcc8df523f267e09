"""The page in headless Chromium, with real clicks and keys."""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from fssbench.board.board import build_boards
from fssbench.board.site.page import write_page
from fssbench.results.record import Weights

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
EVIL = "</script><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("selenium", reason="selenium is not installed: fssbench[browser]")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no Chromium with chromedriver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "headless=new",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1280,900",
    ):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:  # Chromium's sandbox refuses root, as which containers run
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # With the paths given, selenium looks for nothing and loads nothing.
    found = webdriver.Chrome(options=options, service=Service(driver))
    yield found
    found.quit()


@pytest.fixture(scope="module")
def site(tmp_path_factory, runs_below) -> Path:
    """Three methods and a random one on PASCAL, two on shapes, one with markup in an option."""
    folder = tmp_path_factory.mktemp("site")
    runs = runs_below(folder / "runs")
    runs.folds("middle", quality=0.5)
    runs.folds("best", quality=0.6, backbone="vgg16")
    runs.folds("last", quality=0.3, config={"note": EVIL}, environment={"hardware": EVIL})
    runs.folds("last", quality=0.2, config={"note": "plain"})
    runs.folds("lucky", quality=0.9, weights=Weights(source="random"))
    for matcher in ("middle", "best"):
        runs.add(matcher, protocol="shapes/v1-1k", dataset="shapes", shots=5)
    build_boards([runs.root], folder / "boards")
    return write_page(folder / "boards")


@pytest.fixture
def page(browser, site) -> "Page":
    browser.get("about:blank")  # so that no state of another test stays
    emulate(browser, 1280, 900)
    browser.get(site.as_uri())
    yield Page(browser)
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == []


def emulate(browser, width: int, height: int, scheme: str = "light", mobile: bool = False) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)


class Page:
    """Actions of a reader, and visible content."""

    def __init__(self, browser) -> None:
        self.browser = browser

    def all(self, selector: str) -> list:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.browser.find_element("css selector", selector)

    def seen(self, selector: str) -> list:
        return [element for element in self.all(selector) if element.is_displayed()]

    def head(self, name: str, table: int = 0):
        table = self.all("article table")[table]
        heads = table.find_elements("css selector", "thead th")
        return next(head for head in heads if head.text.strip(" ↑↓") == name)

    def methods(self) -> list[str]:
        return [
            name.text
            for name in self.seen("section:first-of-type article:first-of-type tbody th .name")
        ]

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def run(self, script: str):
        return self.browser.execute_script(f"return {script}")


def button(head):
    return head.find_element("css selector", "button")


def test_it_opens_without_a_network_and_without_an_error(page):
    assert page.browser.title == "fssbench leaderboards"
    assert page.run("performance.getEntriesByType('resource').length") == 0
    assert page.one("#status").text == "7 rows in 2 tables"
    assert page.seen(".published") == []


def test_a_click_sorts_and_another_one_turns_round(page):
    assert page.methods() == ["best", "middle", "last", "last", "lucky"]
    assert page.head("Rank").get_attribute("aria-sort") == "ascending"
    button(page.head("Fold 1")).click()
    assert page.head("Fold 1").get_attribute("aria-sort") == "descending"
    assert page.head("Rank").get_attribute("aria-sort") is None
    assert page.methods() == ["lucky", "best", "middle", "last", "last"]
    assert "sorted by Fold 1, descending" in page.one("#status").text
    button(page.head("Fold 1")).click()
    assert page.head("Fold 1").get_attribute("aria-sort") == "ascending"
    assert page.methods() == ["last", "last", "middle", "best", "lucky"]
    button(page.head("Method")).click()
    assert page.methods() == ["best", "last", "last", "lucky", "middle"]


def test_what_is_missing_is_last_whichever_way(page):
    for _ in range(2):
        button(page.head("Rank")).click()
        assert page.methods()[-1] == "lucky"


def test_filters_hide_and_clear_shows_again(page):
    (shapes,) = [card for card in page.all(".card") if "shapes" in card.text]
    shapes.click()
    assert shapes.get_attribute("aria-pressed") == "true"
    assert [s.get_attribute("data-dataset") for s in page.seen("section")] == ["shapes"]
    assert page.run("location.hash") == "#dataset=shapes"
    page.one("[data-filter=shots] [data-value='1']").click()
    assert page.one("#empty").is_displayed()
    assert page.one("#status").text == "0 rows in 0 tables"
    page.one("#clear").click()
    assert page.one("#status").text == "7 rows in 2 tables"
    assert page.run("location.hash") == ""
    assert not page.one("#clear").is_displayed()


def test_search_and_ranked_hide_rows_and_their_points(page):
    page.one("#search").send_keys("VGG best")
    assert page.methods() == ["best"]
    assert len(page.seen("article:first-of-type svg .point")) == 2
    page.one("#clear").click()
    page.one("#ranked").click()
    assert page.methods() == ["best", "middle", "last", "last"]


def test_protocols_follow_the_dataset(page):
    page.one("#protocol option[value='shapes/v1-1k']").click()
    assert len(page.seen("article")) == 1
    next(card for card in page.all(".card") if "pascal5i" in card.text).click()
    assert page.one("#protocol").get_attribute("value") == ""
    assert not page.one("#protocol option[value='shapes/v1-1k']").is_enabled()


def test_published_numbers_are_shown_apart_with_their_caution(page):
    page.one("[data-filter=kind] [data-value=published]").click()
    kinds = {article.get_attribute("data-kind") for article in page.seen("article")}
    assert kinds == {"published"}
    assert "have no rank" in page.seen(".caution")[0].text
    assert not page.one("#ranked").is_enabled()
    page.one("[data-filter=kind] [data-value='']").click()
    kinds = [article.get_attribute("data-kind") for article in page.seen("article")]
    assert kinds == ["measured", "published", "published", "measured"]


def test_a_link_carries_its_filters(page, site):
    page.browser.get("about:blank")
    page.browser.get(f"{site.as_uri()}#dataset=pascal5i&kind=all&shots=5&search=hdm")
    assert page.one("#search").get_attribute("value") == "hdm"
    assert {a.get_attribute("data-shots") for a in page.seen("article")} == {"5"}
    assert all("HDMNet" in row.text for row in page.seen("article tbody tr"))


def test_a_row_opens_with_its_classes_and_records(page, site):
    first = page.all(".more")[1]
    first.click()
    assert first.get_attribute("aria-expanded") == "true"
    (panel,) = page.seen(".panel")
    assert first.get_attribute("aria-controls") == panel.find_element(
        "xpath", "../.."
    ).get_attribute("id")
    bars = panel.find_elements("css selector", ".track span")
    scores = panel.find_elements("css selector", ".folds td:last-child")
    assert len(bars) == len(scores) == 8
    for bar, score in zip(bars, scores, strict=True):
        share = bar.size["width"] / bar.find_element("xpath", "..").size["width"]
        assert share == pytest.approx(float(score.text) / 100, abs=0.02)
    assert len(panel.find_elements("css selector", ".track i")) == 8  # the best row's
    link = panel.find_element("link text", "fold 2").get_attribute("href")
    assert Path(link.removeprefix("file://")).is_file()
    button(page.head("Mean")).click()
    assert page.seen(".panel")
    assert page.run("document.querySelector('.detail').previousElementSibling.innerText").count(
        "middle"
    )
    first.click()
    assert page.seen(".panel") == []


def test_text_of_a_record_stays_text(page):
    row = next(row for row in page.all("tbody tr[data-row]") if "</script>" in row.text)
    row.find_element("css selector", ".more").click()
    assert EVIL in page.seen(".panel")[0].text
    assert page.browser.title == "fssbench leaderboards"
    assert page.all("img") == []
    assert page.run("document.scripts.length") == 2


def test_the_policy_stops_a_script_that_is_not_the_pages(page):
    page.browser.execute_script("""
        document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="document.title=1">');
        const script = document.createElement('script');
        script.textContent = 'document.title = 1';
        document.body.append(script);
    """)
    assert page.browser.title == "fssbench leaderboards"
    page.browser.get_log("browser")  # it told of both


def test_the_keyboard_is_enough(page):
    """From the top: skip link, cards and filters; a heading and a row; Tab, Enter and Space."""
    from selenium.webdriver.common.keys import Keys

    page.press(Keys.TAB)
    assert page.run("document.activeElement.className") == "skip"
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press(Keys.TAB, Keys.TAB, Keys.SPACE)
    assert [s.get_attribute("data-dataset") for s in page.seen("section")] == ["pascal5i"]
    for _ in range(40):
        page.press(Keys.TAB)
        if page.run("document.activeElement.textContent") == "Fold 0":
            break
    page.press(Keys.ENTER)
    assert page.head("Fold 0").get_attribute("aria-sort") == "descending"
    for _ in range(40):
        page.press(Keys.TAB)
        if page.run("document.activeElement.matches('.more')"):
            break
    page.press(Keys.SPACE)
    assert len(page.seen(".panel")) == 1


def test_names_that_assistive_technology_reads(page):
    for table in page.all("article table"):
        assert table.find_element("tag name", "caption").get_attribute("textContent")
        for head in table.find_elements("css selector", "th"):
            assert head.get_attribute("scope") in ("col", "row")
    for region in page.all("[role=region]"):
        assert page.run(f"document.getElementById('{region.get_attribute('aria-labelledby')}')")
    for element in page.seen("button, input, select, a"):
        assert element.accessible_name, element.get_attribute("outerHTML")
    ids = page.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True), (320, True)])
def test_it_fits_the_screen_and_can_be_read(page, scheme, width, mobile) -> None:
    emulate(page.browser, width, 800, scheme, mobile)
    page.all(".more")[0].click()
    assert page.run("document.documentElement.scrollWidth") <= width
    (panel,) = page.seen(".panel")
    assert panel.size["width"] <= width
    for selector in (
        "body",
        ".lead",
        ".card .of",
        ".badge.first",
        ".interval",
        "thead th",
        ".flag",
    ):
        assert contrast(page, selector) >= 4.5, selector
    light = brightness(page.browser.get_screenshot_as_png())
    assert (light > 200) == (scheme == "light")
    if mobile:
        small = [b for b in page.seen(".segments button, .card") if b.size["height"] < 40]
        assert small == []


def test_a_row_and_its_points_are_shown_together(page):
    from selenium.webdriver import ActionChains

    row = page.all("tbody tr[data-row]")[0]
    ActionChains(page.browser).move_to_element(row.find_element("css selector", ".badge")).perform()
    hot = page.all(".hot")
    assert {element.get_attribute("data-row") for element in hot} == {"row-0"}
    assert len(hot) == 3


def test_without_a_script_all_tables_are_there(browser, site):
    browser.get("about:blank")
    with without_scripts(browser):
        browser.get(site.as_uri())
        page = Page(browser)
        assert len(page.seen("article")) == 4
        assert page.seen("#controls") == []
        assert "need JavaScript" in page.one("noscript").text


@contextlib.contextmanager
def without_scripts(browser) -> Iterator[None]:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  let element = document.querySelector(SELECTOR), ground = element, under = [0, 0, 0, 0];
  const ink = parse(getComputedStyle(element).color);
  while (ground && (under.length === 4 && under[3] === 0)) {
    under = parse(getComputedStyle(ground).backgroundColor);
    ground = ground.parentElement;
  }
  const light = (rgb) => rgb.slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
})()"""


def contrast(page: Page, selector: str) -> float:
    """Return the contrast of an element's text with its background (WCAG 2, 1.4.3)."""
    return page.run(CONTRAST.replace("SELECTOR", repr(selector)))


def brightness(png: bytes) -> float:
    """Return the mean brightness of the top left corner of a screenshot, 0 to 255."""
    with Image.open(io.BytesIO(png)) as image:
        corner = image.convert("L").crop((0, 0, 8, 8))
        return sum(corner.tobytes()) / 64


@pytest.fixture(scope="module")
def long_site(site, tmp_path_factory) -> Path:
    """The page of `site`, with 1,000 further rows in its first table."""
    text = site.read_text()
    body = text.index("<tbody>") + len("<tbody>")
    row = text[body : text.index("</tr>", body) + len("</tr>")]
    more = [
        row.replace(">best<", f">copy {n}<").replace('data-text="best', f'data-text="copy{n} best')
        for n in range(1000)
    ]
    file = tmp_path_factory.mktemp("long") / "index.html"
    file.write_text(text[:body] + "".join(more) + text[body:])
    return file


def test_a_long_table_has_pages_for_sorting_and_filters_too(page, long_site):
    page.browser.get(long_site.as_uri())
    assert page.one("#status").text == "1007 rows in 2 tables"
    assert page.methods() == [f"copy {n}" for n in range(100)]
    assert page.seen(".pages")[0].text.split("\n") == [
        "Previous", "Rows 1 to 100 of 1005", "Next",
    ]  # fmt: skip
    previous, following = page.all(".pages button")
    assert not previous.is_enabled()
    following.click()
    assert page.methods() == [f"copy {n}" for n in range(100, 200)]
    assert page.run("document.activeElement.textContent") == "Next"
    for _ in range(9):
        page.all(".pages button")[1].click()
    assert page.methods() == ["best", "middle", "last", "last", "lucky"]
    assert not page.all(".pages button")[1].is_enabled()
    button(page.head("Fold 1")).click()  # lucky is best there
    assert page.methods()[0] == "lucky"
    assert "Rows 1 to 100 of 1005" in page.one(".pages").text
    page.one("#search").send_keys("copy99")  # 99, and 990 to 999
    assert len(page.methods()) == 11
    assert page.all(".pages") == []
