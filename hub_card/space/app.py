"""The Space: three images in, a score with its reasons out; and a ranking of several fusions.

    FUSCORE_MODEL=owner/name FUSCORE_REVISION=... python app.py

Nothing but this machine is asked once the weights are here: no analytics, no fonts from elsewhere.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial, wraps
from importlib.resources import files
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
import views
from scoring import Payload, doubt, locate_loss, rank, score, write_csv

from fuscore_metric import FuScore, InputError
from fuscore_metric.prompts import DEFAULT_ASPECT

P = ParamSpec("P")
R = TypeVar("R")
EXAMPLE = Path(str(files("fuscore_metric") / "assets" / "example"))
FUSED_EXAMPLES = [
    str(EXAMPLE / f"fused_{kind}.png") for kind in ("noisy", "average", "good", "blurred")
]
SLOTS = {"ir": "Infrared", "vis": "Visible", "fused": "Fused"}
WAITING = "Choose three images of one size, then press Score."
LOOKING = "Looking for where the score was lost ..."
WAITING_TO_RANK = "Choose both sources and some fusions of them, then press Rank."
QUIETLY: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
KEPT_SECONDS = 3600
"""How often uploads of more than this age are deleted."""


def build_app(model: FuScore | None = None) -> gr.Blocks:
    """Lay out the app.

    Args:
        model: The model; by default the weights that the environment variables FUSCORE_MODEL
            ("embedded", a directory or a hub id) and FUSCORE_REVISION name.

    Raises:
        CheckpointError: The weights cannot be had.
    """
    loaded = model or FuScore.from_pretrained(
        os.environ.get("FUSCORE_MODEL", "embedded"),
        revision=os.environ.get("FUSCORE_REVISION") or None,
    )
    app = gr.Blocks(
        title="FuScore", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)
    )
    with app:
        _html(
            '<div class="fs-title"><h1>FuScore</h1>'
            "<p>How good is this fusion of an infrared and a visible image?</p></div>"
        )
        _html(views.label_banner(loaded.spec), elem_id="labels")
        with gr.Tab("One fusion"):
            _one_fusion(loaded)
        with gr.Tab("Candidates"):
            _candidates(loaded)
    return app


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` needs beside a port."""
    return {
        "theme": gr.themes.Soft(
            primary_hue="indigo",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        "css_paths": Path(__file__).parent / "style.css",
        "allowed_paths": [str(EXAMPLE)],
        "max_file_size": "64mb",
        "footer_links": [],
        "share": False,
        "ssr_mode": False,
    }


def main() -> None:
    """Serve until stopped."""
    build_app().launch(**launch_options())


def _readable(function: Callable[P, R]) -> Callable[P, R]:
    """Show what is wrong with the input as a message, not as a traceback."""

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    return wrapped


def _warn(ir: Payload, vis: Payload) -> None:
    if said := doubt(ir, vis):
        gr.Warning(said, duration=None)  # stays until it is closed


def _html(value: str = "", *, elem_id: str | None = None) -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, padding=False)


def _slot(name: str, prefix: str = "") -> gr.Image:
    # No clipboard, no webcam: they hand over re-encoded pixels, not the file.
    return gr.Image(
        label=SLOTS[name],
        type="filepath",
        image_mode=None,
        sources=["upload"],
        height=240,
        buttons=["fullscreen"],
        elem_id=f"{prefix}{name}",
    )


def _one_fusion(model: FuScore) -> None:
    with gr.Row():
        slots = [_slot(name) for name in SLOTS]
    with gr.Row():
        aspect = gr.Radio(
            [(title, name) for name, title in views.ASPECT_TITLES.items()],
            value=DEFAULT_ASPECT,
            label="What is scored",
            scale=4,
            elem_id="aspect",
        )
        with gr.Column(scale=1, min_width=200):
            press = gr.Button("Score", variant="primary", elem_id="score")
            with gr.Row(elem_classes="fs-tight"):
                examples = [
                    gr.Button(
                        f"{title} example", size="sm", min_width=80, elem_id=f"example-{kind}"
                    )
                    for title, kind in (("Good", "good"), ("Noisy", "noisy"))
                ]
    with gr.Row():
        with gr.Column():
            result = _html(views.empty(WAITING), elem_id="result")
            aspects = _html(elem_id="aspects")
        with gr.Column():
            picture = gr.Image(
                label="Where the score was lost",
                interactive=False,
                format="png",
                buttons=["download", "fullscreen"],
                visible=False,
                elem_id="map",
            )
            legend = _html(elem_id="legend")
    cleared = [result, aspects, picture, legend]

    def clear() -> tuple[Any, ...]:
        return views.empty(WAITING), "", gr.update(value=None, visible=False), ""

    @_readable
    def show(ir: Payload, vis: Payload, fused: Payload, asked: str) -> tuple[str, str, str]:
        found = score(model, ir, vis, fused, asked)
        _warn(ir, vis)
        return views.score_card(found), views.aspects_card(found), views.empty(LOOKING)

    @_readable
    def explain(ir: Payload, vis: Payload, fused: Payload, asked: str) -> tuple[Any, str]:
        painted = locate_loss(model, ir, vis, fused, asked)
        return gr.update(value=painted, visible=True), views.legend(asked)

    # `preprocess=False` hands over the upload itself. Gradio checks that the path is an upload, and
    # would only open the file to ask for its mode: broken files should fail in our words.
    raw: dict[str, Any] = {
        "inputs": [*slots, aspect],
        "preprocess": False,
        "api_visibility": "private",
    }
    scored = press.click(clear, None, cleared, **QUIETLY).then(
        show, outputs=[result, aspects, legend], show_progress_on=result, **raw
    )
    explained = scored.success(explain, outputs=[picture, legend], show_progress_on=legend, **raw)
    for example, name in zip(examples, ("fused_good.png", "fused_noisy.png"), strict=True):
        chosen = [str(EXAMPLE / file) for file in ("ir.png", "vis.png", name)]
        example.click(partial(list, chosen), None, slots, api_visibility="private")
    for slot in slots:  # a score must not stand beside images that it is not of, nor come late
        slot.change(clear, None, cleared, cancels=[scored, explained], **QUIETLY)


def _candidates(model: FuScore) -> None:
    with gr.Row():
        with gr.Column(scale=2), gr.Row():
            sources = [_slot(name, "candidates-") for name in ("ir", "vis")]
        fused = gr.File(
            label="Fusions of this pair",
            file_count="multiple",
            file_types=["image"],
            height=240,
            elem_id="candidates",
        )
    with gr.Row():
        example = gr.Button("Load example", elem_id="candidates-example")
        press = gr.Button("Rank", variant="primary", elem_id="rank")
    table = _html(views.empty(WAITING_TO_RANK), elem_id="ranking")
    gallery = gr.Gallery(
        label="Best first",
        columns=4,
        object_fit="contain",
        height="auto",
        buttons=["fullscreen"],
        visible=False,
        elem_id="gallery",
    )
    download = gr.DownloadButton("Download as CSV", visible=False, elem_id="csv")
    cleared = [table, gallery, download]

    def clear() -> tuple[Any, ...]:
        hidden = gr.update(value=None, visible=False)
        return views.empty(WAITING_TO_RANK), hidden, hidden

    @_readable
    def show(ir: Payload, vis: Payload, given: list[dict[str, Any]] | None) -> tuple[Any, ...]:
        ranking = rank(model, ir, vis, given)
        _warn(ir, vis)
        path = Path(tempfile.mkdtemp(prefix="fuscore")) / "fuscore_ranking.csv"
        write_csv(ranking, model, path)
        pictures = [
            (one.thumbnail, f"{place}. {one.score:.2f} {one.name}")
            for place, one in enumerate(ranking, 1)
        ]
        return (
            views.ranking_table(ranking),
            gr.update(value=pictures, visible=True),
            gr.update(value=str(path), visible=True),
        )

    ranked = press.click(clear, None, cleared, **QUIETLY).then(
        show,
        [*sources, fused],
        cleared,
        preprocess=False,
        show_progress_on=table,
        api_visibility="private",
    )
    chosen = [*(str(EXAMPLE / name) for name in ("ir.png", "vis.png")), FUSED_EXAMPLES]
    example.click(partial(list, chosen), None, [*sources, fused], api_visibility="private")
    changes = [fused.change, *(source.change for source in sources)]
    for changed in changes:
        changed(clear, None, cleared, cancels=[ranked], **QUIETLY)


if __name__ == "__main__":
    main()
