"""The report's page: what is in it, that nothing escapes or is fetched, and that it is the same."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuscore_metric import cli
from fuscore_metric.checkpoint import LABEL_MEANING
from fuscore_metric.locate import fingerprint, locate
from fuscore_metric.report import figures
from fuscore_metric.report.build import MOST_FAILURES, page_figures, render
from fuscore_metric.report.data import compact, make_grid, script_json
from fuscore_metric.report.judge import OtherWeightsError, load_judge
from fuscore_metric.report.pictures import BEST, SPREAD, WORST, Choice, choose, illustrate
from tests.conftest import synthetic_pair
from tests.report_tables import SETTINGS, fail, make_page, make_report, make_table, write_parquet
from tests.tiny_model import tiny_fuscore

TEMPLATES = Path(figures.__file__).parent / "templates"
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"quotes\" 'and' &amp; {{ 919*919 }}",
    "two\nlines\tand\u2028more",
    "$\\frac{x$",
    "雪景 ‮abc",
    "<!--",
]


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self.scripts = [], [], [], []
        self._inside = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag in ("script", "style"):
            self._inside.append(tag)
            self.scripts.append("")

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data):
        if self._inside:
            self.scripts[-1] += data
        else:
            self.text.append(data)

    @property
    def words(self):
        return " ".join("".join(self.text).split())


def page_data(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


@pytest.fixture(scope="module")
def table():
    return make_table([f"scene {n}" for n in range(12)], ["Alpha", "Beta", "Gamma"])


@pytest.fixture(scope="module")
def page(table):
    return make_page(table)


def test_a_grid_keeps_every_number(table):
    shuffled = table.sample(frac=1, random_state=1).drop(index=5)
    grid = make_grid(shuffled, ["Gamma"])
    assert grid.methods[0] == "Gamma"
    assert set(grid.methods) == {"Alpha", "Beta", "Gamma"}
    for _, row in shuffled.iterrows():
        place = grid.scenes.index(row["scene"]), grid.methods.index(row["method"])
        for name in ("score", "std", "fair", "sharpness"):
            assert grid.columns[name][place] == row[name]
    missing = table.loc[5]
    place = grid.scenes.index(missing["scene"]), grid.methods.index(missing["method"])
    assert np.isnan(grid.score[place])
    assert grid.failures == ()


def test_scores_alone_are_enough(table):
    few = table[["scene", "method", "score", "std"]]
    page = make_page(few)
    assert page_data(page)["score"] == page_data(make_page(table))["score"]
    assert set(page_data(page)["probabilities"]) == {None}
    choice = Choice(0, BEST, (), (0,))
    exhibit = illustrate(choice, make_report(few).grid, judge=None, aspect="overall")
    assert {shot.note for shot in exhibit.shots} == {"the table names no file"}


def test_means_spreads_and_best_leave_out_what_failed():
    scores = make_table(["one", "two", "three"], ["A", "B"])
    scores["score"] = [2.0, 3.0, 4.0, np.nan, np.nan, np.nan]
    grid = make_grid(scores, ["B", "A"])
    np.testing.assert_equal(grid.mean, [2.5, 4.0, np.nan])
    np.testing.assert_equal(grid.spread, [1.0, np.nan, np.nan])
    assert grid.best.tolist() == [0, 1, -1]
    assert [(one.scene, one.method) for one in grid.failures] == [
        ("two", "B"),
        ("three", "A"),
        ("three", "B"),
    ]


def test_the_script_gets_thousandths_and_errors(table):
    data = compact(make_grid(fail(table, 4, error="cut file"), ["Alpha", "Beta", "Gamma"]))
    assert data["errors"] == {4: "cut file"}
    assert data["score"][4] is None
    assert data["score"][3] == round(table.loc[3, "score"] * 1000)
    assert sum(data["probabilities"][:5]) == pytest.approx(1000, abs=3)
    assert data["aspects"] == [
        "thermal retention",
        "texture preservation",
        "artifacts",
        "sharpness",
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_json_in_a_script_is_what_it_was(text):
    safe = script_json({"name": text})
    assert json.loads(safe) == {"name": text}
    assert not set(safe) & set("<>&\n\u2028")


def test_hostile_names_are_only_text():
    names = [f"name {n}" for n in range(len(HOSTILE))]
    plain = Page(make_page(fail(make_table(names, names), 3)))
    table = fail(make_table(HOSTILE, HOSTILE), 3, error=HOSTILE[1])
    settings = SETTINGS | {"weights": HOSTILE[0], "command": HOSTILE[1], "note": HOSTILE}
    page = make_page(table, settings, title=HOSTILE[1], command=HOSTILE[0])
    seen = Page(page)
    assert set(seen.tags) == set(plain.tags)
    assert seen.tags.count("script") == plain.tags.count("script") == 2
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    assert str(919 * 919) not in page  # jinja's braces in a name are not jinja's
    assert set(page_data(page)["methods"]) == set(page_data(page)["scenes"]) == set(HOSTILE)
    for text in HOSTILE[:3]:
        assert text in seen.words


def test_the_same_table_gives_the_same_bytes(table):
    code = (
        "import hashlib, sys; sys.path.insert(0, '.');"
        "from tests.report_tables import *;"
        "t = make_table([f'scene {n}' for n in range(12)], ['Alpha', 'Beta', 'Gamma']);"
        "print(hashlib.sha256(make_page(t).encode()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == hashlib.sha256(make_page(table).encode()).hexdigest()


def test_nothing_is_fetched(page):
    seen = Page(page)
    addresses = [v for _, name, v in seen.attributes if name in ("src", "href", "srcset", "action")]
    assert addresses
    assert all(address.startswith(("#", "data:")) for address in addresses)
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert "@import" not in page
    assert not [tag for tag in seen.tags if tag in ("link", "iframe", "object", "embed")]


def test_only_our_script_may_run(page):
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "</script" not in (TEMPLATES / "report.js").read_text()


def test_every_colour_of_a_plot_follows_the_theme(page):
    assert not figures.SENTINEL.search(page)
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) == 4  # two plots, each wide and narrow
    for plot in plots:
        assert not re.search(r"#[0-9a-f]{6}\b", plot)
        used = set(re.findall(r"var\((--[\w-]+)\)", plot))
        assert {"--ink", "--accent", "--font"} <= used
        assert not used - set(re.findall(r"^\s*(--[\w-]+):", page, re.MULTILINE))


def test_ids_are_not_used_twice(page):
    ids = [value for _, name, value in Page(page).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_page_has_its_parts_in_order(table, page):
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert titles[:4] == ["Leaderboard", "Distribution of scores", "Preference matrix", "Scenes"]
    assert titles[-2] == "Settings and versions"
    words = Page(page).words
    for part in ("36 of 36", "Alpha", "tiny", "2026-11-25"):
        assert part in words
    board = make_report(table).board
    for one in board.methods:
        assert f"{one.mean:.3f}" in words
        assert f"{one.low:.2f} to {one.high:.2f}" in words
    for name, value in (("batch size", "8"), ("torch", "2.13.0")):
        assert f"{name}</th><td>{value}<" in page
    assert SETTINGS["command"] in words


def test_preferences_and_what_is_not_real():
    table = make_table([f"s{n}" for n in range(30)], ["Alpha", "Alike", "Bad"])
    table.loc[table["method"] == "Bad", "score"] -= 1
    rng = np.random.default_rng(3)
    alike = table["method"] == "Alike"
    table.loc[alike, "score"] = table.loc[table["method"] == "Alpha", "score"].to_numpy()
    table.loc[alike, "score"] += rng.permutation(np.linspace(-0.1, 0.1, 30))
    report = make_report(table)
    page = render(report)
    for (row, column), value in np.ndenumerate(report.board.preferences.to_numpy()):
        if row == column:
            continue
        names = report.board.preferences.index[[row, column]]
        cell = re.search(
            rf'<td class="([^"]+)"[^>]*title="{names[0]} over {names[1]}: ([^"]*)"', page
        )
        assert cell[2].startswith(f"{value:.3f}, p ")
        assert cell[1].startswith("win" if value >= 0.5 else "lose")
        assert ("unreal" in cell[1]) == ("Bad" not in names)
        assert ("no difference found" in cell[2]) == ("Bad" not in names)


@pytest.mark.parametrize("kind", [*LABEL_MEANING, "people", None])
def test_only_human_labels_are_called_human(table, kind):
    page = make_page(table, {"label_kind": kind, "labels": "trained on human ratings"})
    banner = re.search(r'<div class="banner (\w+)" id="labels"[^>]*>(.*?)</div>', page, re.DOTALL)
    said = " ".join(Page(banner[2]).words.split())
    if kind == "human":
        assert (banner[1], said) == ("plain", "These weights were trained on human ratings.")
    else:
        assert banner[1] == "warn"
        assert "do not report" in said.lower()
        assert "trained on human" not in said
    if kind == "proxy":
        assert "PROXY ratings" in said


def test_a_table_without_settings_says_so(table):
    assert "says nothing of how it was made" in make_page(table, {})


@pytest.mark.parametrize(
    ("scenes", "methods"), [(1, 1), (1, 3), (5, 1), (2, 2)], ids=lambda n: str(n)
)
def test_small_tables(scenes, methods):
    table = make_table([f"s{n}" for n in range(scenes)], [f"m{n}" for n in range(methods)])
    page = make_page(table)
    words = Page(page).words
    assert "nan" not in words.lower().split()
    assert ("A preference needs two methods" in words) == (methods == 1)
    assert len(page_data(page)["score"]) == scenes * methods
    table["score"] = 3.0  # all alike: nothing to spread, and no width of an axis
    make_page(table)


def test_all_rows_failed():
    table = fail(make_table(["a", "b"], ["m", "n"]), 0, 1, 2, 3, error="broken <file>")
    words = Page(make_page(table, pictures_wanted=True)).words
    assert "No row of this table has a score" in words
    assert "No scene has a score, so none was chosen" in words
    assert words.count("broken <file>") == 4


def test_a_method_without_any_score_stays_in_sight(table):
    failed = table.index[table["method"] == "Beta"]
    page = make_page(fail(table, *failed))
    assert re.search(
        r"<bdi>Beta</bdi></div></th>\s*<td[^>]*>no score</td>\s*<td[^>]*>12</td>", page
    )


def test_failures_are_counted_and_the_list_is_cut():
    table = make_table([f"s{n}" for n in range(MOST_FAILURES)], ["m", "n"])
    page = make_page(fail(table, *range(0, MOST_FAILURES + 50)))
    assert f"{MOST_FAILURES + 50} of {2 * MOST_FAILURES} rows have no score" in Page(page).words
    assert page.count('<td class="error">') == MOST_FAILURES


def test_no_row_at_all(table):
    assert "No row of this table has a score" in make_page(table.iloc[:0])


def contrast(one, other):
    """WCAG 2 contrast ratio of two colours "#rrggbb"."""

    def luminance(colour):
        channels = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def mixed(over, under, share):
    pairs = ((int(over[n : n + 2], 16), int(under[n : n + 2], 16)) for n in (1, 3, 5))
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read(theme):
    css = (TEMPLATES / "report.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)
    colour = {name: both[theme] for name, *both in pairs}
    for text, paper in (
        *[
            (text, paper)
            for text in ("ink", "quiet", "accent", "bad")
            for paper in ("card", "paper")
        ],
        ("warn-ink", "warn-paper"),
        ("ink", "win"),
        ("ink", "lose"),
    ):
        assert contrast(colour[text], colour[paper]) >= 4.5, (text, paper)
    assert contrast(colour["ink"], mixed(colour["accent"], colour["card"], 0.24)) >= 4.5
    assert contrast(colour["accent"], colour["card"]) >= 3  # outlines of the focus, dots, bars


def test_figures_for_print(tmp_path, table):
    drawn = page_figures(make_report(table))
    assert set(drawn) == {"distribution", "preferences", "ranks"}
    for name, draw in drawn.items():
        written = figures.save_print(lambda palette, draw=draw: draw(500, palette), tmp_path / name)
        again = [path.read_bytes() for path in written]
        figures.save_print(lambda palette, draw=draw: draw(500, palette), tmp_path / name)
        assert [path.read_bytes() for path in written] == again
        pdf, png = written
        assert pdf.read_bytes().startswith(b"%PDF")
        with Image.open(png) as picture:
            assert picture.info["dpi"][0] == pytest.approx(300, abs=1)
            pixels = np.asarray(picture.convert("RGB"))
        assert (pixels[0, 0] == 255).all()
        assert pixels.std() > 5


@pytest.mark.parametrize("count", [1, 21])
def test_names_of_a_plot_stay_in_it(count):
    methods = [f"a method with a long name {n}" for n in range(count)]
    report = make_report(make_table(["s", "t", "u"], methods))
    for name, draw in page_figures(report).items():
        for width in (figures.WIDE, figures.NARROW):
            figure = draw(width, figures.PRINT)
            figure.canvas.draw()
            for label in figure.axes[0].get_yticklabels():
                box = label.get_window_extent()
                assert box.x0 >= 0, name
                assert box.x1 <= figure.bbox.width, name


# Pictures


def test_which_scenes_are_chosen():
    table = make_table([f"s{n}" for n in range(8)], ["A", "B", "C"])
    means = np.array([3.0, 4.5, 2.0, 3.5, 1.5, 4.0, 2.5, 3.2])
    spreads = np.array([0.1, 0.2, 1.4, 0.3, 0.4, 0.5, 1.5, 1.0])
    table["score"] = (means[:, None] + spreads[:, None] / 2 * np.array([1, 0, -1])).reshape(-1)
    grid = make_grid(table, ["A", "B", "C"])
    chosen = choose(grid, scenes=2, per_scene=2)
    names = {
        group: [grid.scenes[c.scene] for c in chosen if c.group == group]
        for group in (BEST, WORST, SPREAD)
    }
    assert names == {BEST: ["s1", "s5"], WORST: ["s4", "s2"], SPREAD: ["s6"]}
    assert [c.also for c in chosen if grid.scenes[c.scene] == "s2"] == [(SPREAD,)]
    assert all(c.methods == (0, 2) for c in chosen)
    assert choose(grid, scenes=0, per_scene=2) == []
    # A scene that one method lacks has another mean; it counts only if there is no better.
    assert "s1" not in {
        grid.scenes[c.scene]
        for c in choose(make_grid(fail(table, 5), ["A", "B", "C"]), scenes=2, per_scene=2)
    }


@pytest.mark.parametrize("scenes", [1, 2, 3])
def test_few_scenes_are_shown_once(scenes):
    grid = make_grid(make_table([f"s{n}" for n in range(scenes)], ["A", "B"]), ["A", "B"])
    chosen = choose(grid, scenes=3, per_scene=4)
    assert sorted(c.scene for c in chosen) == list(range(scenes))
    assert {c.group for c in chosen} == ({BEST, WORST} if scenes > 1 else {BEST})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A table of one scene whose files exist: a 16-bit infrared image, and one that is broken."""
    folder = tmp_path_factory.mktemp("pictures")
    ir, vis = synthetic_pair(0, 96, 128)
    Image.fromarray((7000 + 3000 * ir).astype(np.uint16)).save(folder / "ir.png")
    for name, image in (("vis", vis), ("mean", (ir + vis) / 2), ("flat", np.full_like(vis, 0.5))):
        Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"no image")
    table = make_table(["scene"], ["mean", "broken", "gone", "flat"])
    table["score"] = [4.0, 3.0, 2.5, 2.0]
    table["ir"], table["vis"] = str(folder / "ir.png"), str(folder / "vis.png")
    table["fused"] = [str(folder / f"{name}.png") for name in table["method"]]
    return table


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return tiny_fuscore(tmp_path_factory.mktemp("judge"))


def test_pictures_maps_and_what_is_missing(pictures, judge):
    grid = make_grid(pictures, list(pictures["method"]))
    done = []
    [choice] = choose(grid, scenes=1, per_scene=4)
    exhibit = illustrate(choice, grid, judge=judge, aspect="overall", side=64, progress=done.append)
    assert len(done) == 8
    shots = [(shot.role, shot.method) for shot in exhibit.shots]
    assert shots == [
        *[("ir", ""), ("vis", ""), ("fused", "mean"), ("lost", "mean"), ("fused", "broken")],
        *[("fused", "gone"), ("fused", "flat"), ("lost", "flat")],
    ]
    for shot in exhibit.shots:
        if shot.method in ("broken", "gone"):
            assert shot.uri == ""
            assert f"{shot.method}.png" in shot.note
        else:
            assert (shot.width, shot.height) == (64, 48)
            assert pixels_of(shot).std() > 5 or shot.method == "flat"
    infrared = pixels_of(exhibit.shots[0])
    assert infrared.min() < 40  # by its own range, not the high byte of the counts
    assert infrared.max() > 200
    assert exhibit.full_scale > 0
    page = make_page(pictures, exhibits=[exhibit], pictures_wanted=True)
    words = Page(page).words
    assert page.count("<img ") == 6
    assert words.count("No picture") == 2
    assert [f"where {name} lost score" in words for name in pictures["method"]] == [1, 0, 0, 1]
    assert "gone.png" in words


def pixels_of(shot):
    content = base64.b64decode(shot.uri.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_map_of_a_broken_picture_is_no_crash(pictures, judge):
    grid = make_grid(pictures, list(pictures["method"]))
    choice = Choice(0, BEST, (), (1, 2))
    exhibit = illustrate(choice, grid, judge=judge, aspect="overall")
    assert [shot.role for shot in exhibit.shots] == ["ir", "vis", "fused", "fused"]
    assert exhibit.full_scale == 0


def test_the_judge_is_the_one_that_scored():
    there = fingerprint(locate("embedded"))
    settings = {"source": "embedded", "weights_hash": there, "dtype": "float32"}
    assert load_judge(settings).spec.name.startswith("fuscore")
    for changed, words in (
        ({"weights_hash": "sha256:1"}, "not those that gave the scores"),
        ({"weights_hash": None}, "does not say which"),
        ({"source": "/nowhere/to/be/found"}, "cannot load"),
    ):
        with pytest.raises(OtherWeightsError, match=words):
            load_judge(settings | changed)


# The command


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `fuscore report` in this process: exit status, stdout, stderr."""

    def run_one(*arguments):
        monkeypatch.setattr(sys, "argv", ["fuscore", "report", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as leave:
            status = leave.code or 0
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out, said.err)

    return run_one


@pytest.fixture(scope="module")
def results(pictures, tmp_path_factory):
    """A stored table of the embedded weights, by its hash, whose pictures exist."""
    settings = SETTINGS | {"weights_hash": fingerprint(locate("embedded"))}
    return write_parquet(pictures, settings, tmp_path_factory.mktemp("results") / "results.parquet")


def test_the_command_makes_page_and_figures(run, results, tmp_path):
    done = run(results, "-o", tmp_path / "page.html", "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines()]
    assert written[0] == tmp_path / "page.html"
    assert {path.name for path in written[1:]} == {
        f"{name}.{suffix}"
        for name in ("distribution", "preferences", "ranks")
        for suffix in ("pdf", "png")
    }
    assert all(path.stat().st_size > 1000 for path in written)
    page = (tmp_path / "page.html").read_text()
    words = Page(page).words
    assert words.count(" lost score") == 2
    assert f"fuscore report {results}" in words
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_other_weights_are_named_and_draw_no_maps(run, pictures, tmp_path):
    path = write_parquet(pictures, SETTINGS, tmp_path / "results.parquet")
    done = run(path, "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    words = Page((tmp_path / "page.html").read_text()).words
    assert "not those that gave the scores" in words
    assert "not those that gave the scores" in done.stderr
    assert " lost score" not in words
    done = run(path, "-o", tmp_path / "page.html", "--no-attribution", "--no-progress")
    assert (done.returncode, done.stderr) == (0, "")
    assert "No maps" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["missing.parquet"], "missing.parquet"),
        ([], "RESULTS"),
        (["RESULTS", "-o", "no/such/folder/page.html"], "--out"),
        (["RESULTS", "-o", "."], "--out"),
        (["RESULTS", "--figures", "RESULTS"], "--figures"),
        (["RESULTS", "--scenes", "-1"], "--scenes"),
    ],
)
def test_bad_arguments(run, results, arguments, word):
    done = run(*(str(results) if one == "RESULTS" else one for one in arguments))
    assert done.returncode == 2
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_the_templates_are_in_the_package():
    from importlib.resources import files

    names = {path.name for path in files("fuscore_metric.report").joinpath("templates").iterdir()}
    assert names == {"report.html.jinja", "report.css", "report.js"}
