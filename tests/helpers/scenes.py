"""Made-up scenes, and data folders of them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HUMAN_SEVERITY_COLUMNS = (
    "fusion_method,distortion,level,parameter,scenes,mean_opinion_0_100,sd_between_scenes,"
    "mean_sd_between_people,mean_dmos"
)


def synthetic_pair(
    seed: int = 0, height: int = 96, width: int = 128
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An infrared image with one hot target, and a textured visible image of the same size."""
    from scipy import ndimage  # not at the top: tests on a GPU run without it

    rng = np.random.default_rng(seed)

    def rough(sigma: float) -> NDArray[np.float64]:
        field = ndimage.gaussian_filter(rng.normal(size=(height, width)), sigma)
        return field / field.std()

    ir = 0.3 + 0.04 * rough(height / 12)
    top, left = rng.integers(height // 6, height // 2), rng.integers(width // 6, width // 2)
    ir[top : top + height // 4, left : left + width // 8] += 0.5
    vis = 0.45 + 0.08 * rough(height / 16) + 0.08 * rough(1.2)
    return np.clip(ir, 0, 1), np.clip(vis, 0, 1)


def write_severity(path: Path) -> None:
    """A made-up table of the human study's columns: blur hurts, noise and stripes less."""
    lines = [HUMAN_SEVERITY_COLUMNS]
    for method, clean in (("average", 60.0), ("pyramid", 64.0)):
        lines.append(f"{method},none,0,,19,{clean},12,18,")
        for kind, parameters, kept in (
            ("gaussian_noise_sigma", (0.0025, 0.01375, 0.025), (0.99, 0.88, 0.76)),
            ("stripe_noise_std", (0.0025, 0.01375, 0.025), (0.99, 0.87, 0.75)),
            ("gaussian_blur_sigma_px", (1, 2, 3), (0.72, 0.42, 0.26)),
        ):
            for level, (parameter, share) in enumerate(zip(parameters, kept, strict=True), 1):
                lines.append(f"{method},{kind},{level},{parameter},19,{clean * share},8,19,40")
    path.write_text("\n".join(lines) + "\n")


def write_scenes(folder: Path, scenes: int, *, height: int = 48, width: int = 64) -> Path:
    """A data folder in the layout of the real one: colour in VIFB, grey in TNO, two methods."""
    from scipy import ndimage

    for number in range(scenes):
        ir, vis = synthetic_pair(number, height, width)
        name, colour = ("VIFB", True) if number % 2 == 0 else ("TNO", False)
        tint = np.array([1.0, 0.9, 0.8]) if colour else 1.0
        shown = vis[..., None] * tint if colour else vis
        fused = (ir + vis) / 2
        images = {"ir": ir, "vis": shown, "fused/good": np.maximum(ir, vis)}
        if number % 3 == 0:  # as in life, not every method was run on every scene
            images["fused/soft"] = ndimage.gaussian_filter(fused, 2)
        for place, image in images.items():
            path = folder / name / place / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)
    write_severity(folder / "human_severity.csv")
    return folder
