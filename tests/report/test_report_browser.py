"""The report in a browser, from a file: sorting, filtering, the panel of a scene, themes, size."""

import re
import time
from dataclasses import replace

import pytest

from fuscore_metric.measures.catalogue import MEASURES
from fuscore_metric.report.pictures import choose, illustrate
from tests.helpers.report_tables import fail, make_page, make_report, make_table, measure
from tests.helpers.scenes import write_scenes

SCENES = [f"scene {n}" for n in range(60)]
METHODS = ["good", "soft", "third", "<b>fourth</b>"]
LAPTOP, PHONE = (1440, 900), (390, 844)

pytestmark = pytest.mark.slow


@pytest.fixture
def open_file(browser):
    """Open a file at a size; the test fails if the page complains or asks for anything else."""
    contexts, complaints = [], []

    def open_one(path, size=LAPTOP, scheme="light"):
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
        )
        contexts.append(context)
        address = path.as_uri()
        context.on(
            "request",
            lambda request: (
                request.url.startswith(("data:", address)) or complaints.append(request.url)
            ),
        )
        page = context.new_page()
        page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def table():
    return fail(make_table(SCENES, METHODS), 9, error="cut <file>")


@pytest.fixture(scope="module")
def illustrated(table, tmp_path_factory):
    """A table whose pictures exist, and pictures of the scenes chosen."""
    images = write_scenes(tmp_path_factory.mktemp("pictures"), 1) / "VIFB"
    table = table.copy()
    for column, place in (("ir", "ir"), ("vis", "vis"), ("fused", "fused/good")):
        table[column] = str(images / place / "00.png")
    grid = make_report(table).grid
    exhibits = [
        illustrate(one, grid, model=None, aspect="overall")
        for one in choose(grid, scenes=2, per_scene=3)
    ]
    return table, exhibits


@pytest.fixture(scope="module")
def file(illustrated, tmp_path_factory):
    """A report with pictures of the scenes chosen."""
    table, exhibits = illustrated
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(make_page(table, exhibits=exhibits, pictures_wanted=True))
    return path


@pytest.fixture(scope="module")
def mapped_file(illustrated, tmp_path_factory):
    """The same with something in the place of the maps of each scene's best and worst."""
    table, exhibits = illustrated
    mapped = []
    for exhibit in exhibits:
        ir, vis, *fused = exhibit.shots
        shots = [ir, vis, fused[0], replace(fused[0], role="lost"), *fused[1:]]
        mapped.append(replace(exhibit, shots=(*shots, replace(fused[-1], role="lost"))))
    path = tmp_path_factory.mktemp("mapped") / "report.html"
    path.write_text(make_page(table, exhibits=mapped, pictures_wanted=True))
    return path


def column(page, number):
    return page.locator(f"#grid tbody tr:not(.space) > :nth-child({number})").all_inner_texts()


def body_fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def heading(page, name):
    return page.locator("#grid thead th", has=page.get_by_role("button", name=name, exact=True))


def test_sorting_by_a_click_and_by_keys(open_file, file, table):
    page = open_file(file)
    good = table[table["method"] == "good"].sort_values("score")
    best = heading(page, "good")
    assert best.get_attribute("aria-sort") is None
    best.get_by_role("button").click()
    assert best.get_attribute("aria-sort") == "descending"
    assert column(page, 1)[:5] == good["scene"][::-1].head(5).tolist()
    assert page.locator("#grid thead th[aria-sort]").count() == 1
    page.keyboard.press("Enter")  # the focus stays where it was
    assert heading(page, "good").get_attribute("aria-sort") == "ascending"
    assert column(page, 1)[:5] == good["scene"].head(5).tolist()
    page.locator("#grid").evaluate("box => box.scrollTop = box.scrollHeight")
    page.locator("#grid tbody tr:last-child:not(.space)").wait_for()
    assert column(page, 1)[-3:] == good["scene"].tail(3).tolist()
    # What failed comes last, whichever way.
    for _ in range(2):
        heading(page, "soft").get_by_role("button").click()
        page.locator("#grid").evaluate("box => box.scrollTop = box.scrollHeight")
        page.locator("#grid tbody tr:last-child", has_text="failed").wait_for()
    heading(page, "Scene").get_by_role("button").click()
    assert column(page, 1)[:3] == ["scene 0", "scene 1", "scene 2"]  # numbers as numbers


def test_filters(open_file, file):
    page = open_file(file)
    page.get_by_label("Scenes containing").fill("ne 1")
    assert column(page, 1) == [f"scene {n}" for n in (1, *range(10, 20))]
    page.get_by_label("Methods containing").fill("goo, FOURTH")
    shown = page.locator("#grid thead th").all_inner_texts()
    assert [" ".join(name.split()) for name in shown[4:]] == [
        name for name in shown[4:] if "good" in name or "fourth" in name
    ]
    assert len(shown) == 6
    assert page.locator("#found").inner_text() == "11 of 60 scenes, 2 of 4 methods"
    page.get_by_label("Scenes containing").fill("nothing like it")
    assert column(page, 1) == []


def test_the_panel_of_a_scene(open_file, file, table):
    page = open_file(file)
    page.get_by_label("Scenes containing").fill("scene 2")
    page.locator("#grid tbody button").first.click()
    panel = page.locator("#detail")
    assert panel.is_visible()
    assert page.locator("#detail-title").inner_text() == "scene 2"
    row = table.iloc[9]
    assert (row["scene"], row["method"]) == ("scene 2", "soft")
    lines = panel.locator("tbody tr").all_inner_texts()
    assert len(lines) == 4
    assert "cut <file>" in lines[-1]  # the failed one is last
    scored = table[(table["scene"] == "scene 2") & table["score"].notna()]
    scored = scored.sort_values("score", ascending=False)
    for line, (_, expected) in zip(lines[:3], scored.iterrows(), strict=True):
        assert expected["method"] in line
        for name in ("score", "std", "sharpness"):
            assert f"{expected[name]:.3f}" in line
    label = panel.locator(".stack").first.get_attribute("aria-label")
    assert label.startswith(f"bad {100 * scored.iloc[0]['bad']:.1f} %, poor ")
    widths = (
        panel.locator(".stack")
        .first.locator("i")
        .evaluate_all("parts => parts.map((part) => part.getBoundingClientRect().width)")
    )
    shares = scored.iloc[0][["bad", "poor", "fair", "good", "excellent"]].to_list()
    assert [w / sum(widths) for w in widths] == pytest.approx(shares, abs=0.01)
    page.click("#next")
    assert page.locator("#detail-title").inner_text() == "scene 20"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#detail-title").inner_text() == "scene 2"
    page.keyboard.press("Escape")
    assert not panel.is_visible()


def test_a_scene_with_pictures_shows_them_in_its_panel(open_file, file):
    page = open_file(file)
    button = page.locator(".exhibit [data-open]").first
    name = button.inner_text()
    button.click()
    assert page.locator("#detail-title").inner_text() == name
    pictures = page.locator("#detail img")
    assert pictures.count() == 5
    for place in range(5):
        assert pictures.nth(place).evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
    page.click("#close")
    assert not page.locator("#detail").is_visible()


def test_rows_by_keyboard(open_file, file):
    page = open_file(file)
    page.locator("#grid tbody button").first.focus()
    for _ in range(45):
        page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "scene 45"
    page.keyboard.press("Enter")
    assert page.locator("#detail-title").inner_text() == "scene 45"


def brightness(page):
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_changed(open_file, file, scheme):
    page = open_file(file, scheme=scheme)
    assert (brightness(page) > 128) == (scheme == "light")
    ink = "getComputedStyle(document.querySelector('.plot text')).fill"
    before = page.evaluate(ink)
    page.click("#theme")
    assert (brightness(page) > 128) == (scheme == "dark")
    assert page.evaluate(ink) != before  # plots follow
    page.click("#theme")
    assert (brightness(page) > 128) == (scheme == "light")


@pytest.fixture(scope="module")
def wide_file(tmp_path_factory):
    """A report of many methods and measures, and of names that break nowhere."""
    many = make_table(
        ["one"], [f"a_long_name_of_a_method_without_any_space_{n}" for n in range(40)]
    )
    path = tmp_path_factory.mktemp("wide") / "wide.html"
    path.write_text(make_page(measure(many, *MEASURES), title="A_title_without_any_space_" * 4))
    return path


@pytest.mark.parametrize("size", [LAPTOP, PHONE, (320, 640)], ids=str)
def test_the_page_never_scrolls_sideways(open_file, file, wide_file, size):
    for path in (file, wide_file):
        page = open_file(path, size)
        assert body_fits(page)
        page.locator("#grid tbody button").first.click()
        assert body_fits(page)
        panel = page.locator("#detail").bounding_box()
        assert panel["x"] >= 0
        assert panel["x"] + panel["width"] <= size[0]
        assert page.locator("#detail").evaluate("one => one.scrollWidth <= one.clientWidth")
    assert (
        page.locator(".matrix")
        .first.locator("..")
        .evaluate("one => one.scrollWidth > one.clientWidth")
    )


def test_hostile_names_do_nothing_in_a_browser(open_file, tmp_path):
    names = [
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(2)</script>",
        "__proto__",
        "a'\"`",
    ]
    path = tmp_path / "hostile.html"
    path.write_text(make_page(make_table(names, names), title=names[0]))
    page = open_file(path)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.locator("#grid tbody button").first.click()
    assert page.locator("#detail-title").inner_text() in names
    assert set(column(page, 1)) == set(names)
    assert page.locator("img").count() == 0


def test_all_failed_and_a_single_row_open(open_file, tmp_path):
    failed = tmp_path / "failed.html"
    failed.write_text(make_page(fail(make_table(["a"], ["m", "n"]), 0, 1)))
    page = open_file(failed, PHONE)
    assert column(page, 5) == ["failed"]
    page.locator("#grid tbody button").click()
    assert page.locator("#detail .failed").count() == 2
    single = tmp_path / "single.html"
    single.write_text(make_page(make_table(["a"], ["m"])))
    assert len(column(open_file(single), 5)) == 1


def test_five_hundred_scenes_of_twenty_methods_open_at_once(open_file, tmp_path):
    table = make_table([f"scene {n}" for n in range(500)], [f"method {n}" for n in range(20)])
    table = measure(table, *MEASURES)
    path = tmp_path / "large.html"
    path.write_text(make_page(table))
    start = time.perf_counter()
    page = open_file(path)
    page.wait_for_selector("#grid tbody tr:nth-child(20)")
    page.screenshot(path=tmp_path / "large.png")
    assert time.perf_counter() - start < 3
    assert page.locator("#found").inner_text() == "500 of 500 scenes, 20 of 20 methods"


def test_print_has_every_row(open_file, file):
    page = open_file(file)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(column(page, 1)) == 60
    assert not page.locator("nav").is_visible()
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(column(page, 1)) < 60


def test_a_picture_enlarges_by_click_and_by_keys(open_file, file):
    page = open_file(file)
    small, large = page.locator("#pictures .enlarge").first, page.locator("#large")
    small.click()
    assert large.locator("img").bounding_box()["width"] > 2 * small.bounding_box()["width"]
    page.keyboard.press("Escape")
    assert not large.is_visible()
    page.keyboard.press("Enter")  # the focus is where it was
    assert large.is_visible()
    large.locator("img").click()
    assert not large.is_visible()


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=str)
def test_maps_stand_below_their_fusions_and_fusions_beside_each_other(open_file, mapped_file, size):
    page = open_file(mapped_file, size)
    boxes = (
        page.locator(".shots")
        .first.locator("figure")
        .evaluate_all(
            "all => all.map((one) => { const box = one.getBoundingClientRect();"
            " return [one.className, Math.round(box.x), Math.round(box.y)]; })"
        )
    )
    fused = {(x, y) for role, x, y in boxes if role != "lost"}
    lost = {(x, y) for role, x, y in boxes if role == "lost"}
    assert lost
    assert not {y for _, y in fused} & {y for _, y in lost}
    for x, y in lost:
        above = max(other for place, other in fused | lost if place == x and other < y)
        assert (x, above) in fused


def test_the_leaderboard_is_copied(open_file, file):
    page = open_file(file)
    page.get_by_role("button", name="Copy as CSV").click()
    page.locator("#copied", has_text="CSV").wait_for()
    field = page.get_by_label("Scenes containing")
    field.press("Control+v")
    assert field.input_value().startswith("method,mean,low,high")
