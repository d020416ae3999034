"""`fuscore pyiqa`: let pyiqa know FuScore in every Python start, and feed pyiqa's own command."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

HOOK_FILE = "fuscore_metric_pyiqa.pth"
HOOK_LINE = (
    "import importlib.util as u; u.find_spec('fuscore_metric') and __import__('fuscore_metric')"
)
"""Python runs it at each start. Quiet if this package was removed and the file was left."""

app = typer.Typer(help="Let pyiqa, and its own command, know FuScore.", no_args_is_help=True)


@app.command()
def enable() -> None:
    """Make `pyiqa.create_metric("fuscore")` work without `import fuscore_metric`.

    Writes a file of one line into this environment's site-packages. Every start of this
    environment's Python then imports `fuscore_metric` (not torch, not pyiqa), which registers when
    pyiqa is imported. `disable` removes the file.
    """
    path = hook_path()
    try:
        path.write_text(HOOK_LINE + "\n")
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}") from error
    _say(
        f"Wrote {path}: every start of this environment's Python now imports fuscore_metric, "
        "and pyiqa knows 'fuscore' and 'fuscore_fr'. Undo: fuscore pyiqa disable"
    )


@app.command()
def disable() -> None:
    """Remove what `enable` wrote."""
    path = hook_path()
    try:
        path.unlink()
    except FileNotFoundError:
        _say(f"Nothing to remove: there is no {path}")
        return
    except OSError as error:
        raise typer.BadParameter(f"cannot remove {path}: {error.strerror}") from error
    _say(f"Removed {path}")


@app.command()
def reference(
    ir: Annotated[Path, typer.Option(help="Infrared image, or a folder of them.")],
    vis: Annotated[Path, typer.Option(help="Visible image, or a folder of the same names.")],
    out: Annotated[Path, typer.Option(help="Image to write; or the folder to write into.")],
) -> None:
    """Join source pairs, ir left and vis right, into reference images for `fuscore_fr`.

    They are stored in 8 bits; 16-bit infrared is scaled by its own range first. In folders, files
    are matched by name without extension.

    Example: fuscore pyiqa reference --ir ir/ --vis vis/ --out ref/ and then
    pyiqa fuscore_fr -t fused/ -r ref/
    """
    pairs = _pairs(ir, vis, out)
    from PIL import Image

    from fuscore_metric.integrations.pyiqa import side_by_side

    for left, right, path in pairs:
        (both,) = side_by_side(left, right)
        path.parent.mkdir(parents=True, exist_ok=True)
        as_bytes = (both * 255).round().byte().movedim(0, -1).numpy()  # (H, 2 W, 3)
        Image.fromarray(as_bytes).save(path)
    _say(f"Wrote {len(pairs)} reference image{'s' if len(pairs) > 1 else ''} to {out}")


def hook_path() -> Path:
    """Where the hook of this environment is, or would be."""
    return Path(sysconfig.get_path("purelib")) / HOOK_FILE


def _pairs(ir: Path, vis: Path, out: Path) -> list[tuple[Path, Path, Path]]:
    """(ir, vis, file to write) of one pair of files or of two folders."""
    for option, path in (("--ir", ir), ("--vis", vis)):
        if not path.exists():
            raise typer.BadParameter(f"no such file or folder: {path}", param_hint=option)
    if ir.is_dir() != vis.is_dir():
        raise typer.BadParameter("expected two files or two folders", param_hint="--ir, --vis")
    if not ir.is_dir():
        return [(ir, vis, out)]
    from fuscore_metric.runs.folders import images_by_scene

    (left, _), (right, _) = images_by_scene(ir, "ir"), images_by_scene(vis, "vis")
    if alone := sorted(set(left) ^ set(right)):
        names = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
        raise typer.BadParameter(f"without a partner: {names}", param_hint="--ir, --vis")
    return [(Path(left[name]), Path(right[name]), out / f"{name}.png") for name in sorted(left)]


def _say(text: str) -> None:
    Console(highlight=False).print(text, markup=False, soft_wrap=True)
