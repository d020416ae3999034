"""The report's plots and colours: the numbers are those of the leaderboard, and all can be read."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuscore_metric.report import figure_files, figures
from fuscore_metric.report.build import page_figures
from fuscore_metric.results.rows import FURTHER_ASPECTS
from tests.helpers.report_tables import make_report, make_table, measure


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
    css = (Path(figures.__file__).parent / "templates" / "report.css").read_text()
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
    for line in ("accent", *(f"series-{number}" for number in range(8))):
        assert contrast(colour[line], colour["card"]) >= 3  # outlines of the focus, dots, lines


def test_figures_for_print(tmp_path, table):
    drawn = page_figures(make_report(measure(table, "EN", "Nabf")))
    assert set(drawn) == {
        *("distribution", "aspects", "aspect-profiles", "preferences", "ranks"),
        *("measure-ranks", "measure-correlations"),
    }
    for name, draw in drawn.items():
        one, stem = lambda palette, draw=draw: draw(500, palette), tmp_path / name
        written = figure_files.save_print(one, stem)
        again = [path.read_bytes() for path in written]
        figure_files.save_print(one, stem)
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
    report = make_report(measure(make_table(["s", "t", "u"], methods), "EN"))
    for name, draw in page_figures(report).items():
        for width in (figures.WIDE, figures.NARROW):
            figure = draw(width, figures.PRINT)
            figure.canvas.draw()
            for label in figure.axes[0].get_yticklabels():
                box = label.get_window_extent()
                assert box.x0 >= 0, name
                assert box.x1 <= figure.bbox.width, name


def test_the_aspects_are_drawn_with_the_numbers_of_the_leaderboard(table):
    report = make_report(table)
    figure = page_figures(report)["aspects"](figures.WIDE, figures.PRINT)
    titles = [axes.get_title().replace("\n", " ") for axes in figure.axes]
    assert titles[:2] == ["overall", "thermal retention"]
    assert len(titles) == 5
    for axes, name in zip(figure.axes, ("", *FURTHER_ASPECTS), strict=True):
        spans, dots = axes.lines[::2], axes.lines[1::2]
        for one, span, dot in zip(report.board.methods, spans, dots, strict=True):
            low, high = span.get_xdata()
            mean = one.aspects[name] if name else one.mean
            assert dot.get_xdata()[0] == mean
            assert low < mean < high
            assert name or (low, high) == (one.low, one.high)
    assert "aspects" not in page_figures(make_report(table[["scene", "method", "score", "std"]]))


def test_a_bar_of_the_ranks_is_beside_the_dots_it_joins():
    table = make_table([f"s{n}" for n in range(40)], [f"m{n}" for n in range(12)])
    report = make_report(table)
    figure = page_figures(report)["ranks"](figures.WIDE, figures.PRINT)
    [axes] = figure.axes
    points = [axes.transData.transform(np.column_stack(line.get_data())) for line in axes.lines]
    bars = [ends for ends in points if len(ends) == 2 and ends[0, 1] != ends[1, 1]]
    dots = np.concatenate([ends for ends in points if len(ends) == 1])
    groups = [group for group in report.board.groups if len(group) > 1]
    assert len(bars) == len(groups) > 1
    for (beside, top), (_, bottom) in bars:
        joined = dots[(dots[:, 1] < top) & (dots[:, 1] > bottom)]
        assert len(joined) in map(len, groups)
        assert 5 < beside - joined[:, 0].max() < 10 + 8 * len(bars)
    assert len({round(beside) for (beside, _), _ in bars}) == len(bars)


def test_a_profile_has_the_means_of_the_aspects_and_names_that_stay_apart():
    methods = [f"m{n}" for n in range(20)]
    table = make_table([f"s{n}" for n in range(30)], methods)
    report = make_report(table, highlight=["m19"])
    for width in (figures.WIDE, figures.NARROW):
        figure = page_figures(report)["aspect-profiles"](width, figures.PRINT)
        [axes] = figure.axes
        figure.canvas.draw()
        boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
        assert all(box.x1 <= figure.bbox.width for box in boxes)
        assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))
    best = [one.method for one in report.board.methods if one.method != "m19"]
    assert {text.get_text() for text in axes.texts} == {"m19", *best[:7]}
    lines = {tuple(line.get_ydata()) for line in axes.lines if len(line.get_ydata()) == 5}
    assert lines == {
        (one.mean, *(one.aspects[name] for name in FURTHER_ASPECTS)) for one in report.board.methods
    }
    assert "aspect-profiles" not in page_figures(make_report(table.drop(columns="sharpness")))
