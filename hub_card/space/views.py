"""What FuScore says -> HTML for the app. Everything of the user's is escaped."""

from __future__ import annotations

from html import escape

import numpy as np
from scoring import Answer, Ranked

from fuscore_metric import FuScoreSpec
from fuscore_metric.drawing.overlay import SCALE_END, colours
from fuscore_metric.levels import SCORE_RANGE
from fuscore_metric.prompts import LEVEL_WORDS

ASPECT_TITLES = {
    "overall": "Overall quality",
    "thermal_retention": "Thermal retention",
    "texture_preservation": "Texture preservation",
    "artifacts": "Few artifacts",
    "sharpness": "Sharpness",
}
HEADLINES = {
    "proxy": "Proxy ratings, not human opinion.",
    "human": "Learned from people's ratings.",
    "model": "Learned from a multimodal LLM that looked at pictures, not from people.",
    "none": "Untrained: these scores mean nothing yet.",
}


def label_banner(spec: FuScoreSpec) -> str:
    """Say what the scores stand on; shown on every page, always."""
    return (
        f'<div class="fs-labels" role="note"><b>{HEADLINES[spec.label_kind]}</b> '
        f"Weights {escape(spec.name)}, {escape(spec.full_label_statement())}.</div>"
    )


def empty(text: str) -> str:
    """A card that waits for something."""
    return f'<div class="fs-card fs-empty">{escape(text)}</div>'


def score_card(found: Answer) -> str:
    """The score, large, with its uncertainty and the five answers it is made of."""
    low, high = SCORE_RANGE
    place, spread = 100 * (found.score - low) / (high - low), 100 * found.std / (high - low)
    left, right = max(0.0, place - spread), min(100.0, place + spread)
    words = "".join(
        _bar(word, probability, f"{100 * probability:.1f} %", "fs-short")
        for word, probability in zip(LEVEL_WORDS[::-1], found.probabilities[::-1], strict=True)
    )
    return f"""<div class="fs-card" id="fs-score-card">
<h3>{ASPECT_TITLES[found.aspect]}</h3>
<div class="fs-score"><b>{found.score:.2f}</b><span>of {high:g}, std {found.std:.2f}</span></div>
<div class="fs-ruler" aria-hidden="true"><i style="left:{left:.2f}%;width:{right - left:.2f}%"></i>
<em style="left:{place:.2f}%"></em></div>
<div class="fs-ends"><span>1 bad</span><span>5 excellent</span></div>
<div class="fs-section"><h3>What the model answers</h3>{words}</div>
</div>"""


def aspects_card(found: Answer) -> str:
    """Every aspect of the same look at the images."""
    low, high = SCORE_RANGE
    bars = "".join(
        _bar(
            ASPECT_TITLES[name],
            (score - low) / (high - low),
            f"{score:.2f}",
            "fs-asked" if name == found.aspect else "",
        )
        for name, (score, _) in found.aspects.items()
    )
    return (
        f'<div class="fs-card" id="fs-aspects-card"><h3>All aspects, 1 to 5</h3>{bars}'
        '<p class="fs-note">All from the same look at the images. Higher is better.</p></div>'
    )


def _bar(title: str, share: float, shown: str, kind: str) -> str:
    return (
        f'<div class="fs-bar {kind}"><span>{escape(title)}</span>'
        f'<div><div style="width:{100 * share:.2f}%"></div></div><span>{shown}</span></div>'
    )


def legend(aspect: str) -> str:
    """The colours of the map."""
    stops = ", ".join(
        f"rgb({red:.0f} {green:.0f} {blue:.0f})"
        for red, green, blue in colours(np.linspace(0, 1, 9, dtype=np.float32))
    )
    return f"""<div class="fs-card" id="fs-legend">
<h3>Where {ASPECT_TITLES[aspect].lower()} was lost</h3>
<div class="fs-ramp" style="background:linear-gradient(90deg, {stops})"></div>
<div class="fs-ends"><span>nothing</span><span>{SCALE_END}</span></div>
<p class="fs-note">Compared with a plain average of the sources in the visible one's colours.
Areas count, not single pixels.</p></div>"""


def ranking_table(ranking: list[Ranked]) -> str:
    """Candidates, best first."""
    rows = "".join(
        f"<tr{' class=fs-best' if place == 1 else ''}><td>{place}</td><td>{escape(one.name)}</td>"
        f"<td>{one.score:.3f}</td><td>{one.std:.3f}</td><td>{_chance(one.preferred)}</td></tr>"
        for place, one in enumerate(ranking, 1)
    )
    return f"""<div class="fs-card" id="fs-ranking"><h3>Ranking by overall quality</h3>
<div class="fs-scroll"><table class="fs-table"><thead><tr>
<th>#</th><th>File</th><th>Score</th><th>Std</th><th>P(beats next)</th></tr></thead>
<tbody>{rows}</tbody></table></div></div>"""


def _chance(chance: float | None) -> str:
    if chance is None:
        return ""
    return "&gt; 99.9 %" if chance > 0.9995 else f"{100 * chance:.1f} %"
