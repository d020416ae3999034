"""A checkpoint and evaluations -> the hub's model card: YAML metadata and Markdown, as one text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluations import TASK, Results, read_evaluations, recorded, table
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.repocard_data import model_index_to_eval_results
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fuscore_metric.checkpoints.spec import FuScoreSpec, base_is_on_hub, read_spec
from fuscore_metric.prompts import ASPECTS, QUESTIONS

FOLDER = Path(__file__).parent
TEMPLATE = "template.md"
WEIGHTS_FILE = "model.safetensors"
LIBRARY = "fuscore-metric"
TAGS = ["image-quality-assessment", "image-fusion", "infrared", "visible", "metric", "reward-model"]
RELATIONS = {"full": "finetune", "merged": "finetune", "adapter": "adapter"}
"""How weights relate to their base in the hub's words, where "merge" means of several models."""
REQUIRED = ("license", "library_name", "pipeline_tag", "tags")
_MEASURED_ON = re.compile(r"<!-- weights: (?P<name>\S+), sha256 (?P<digest>[0-9a-f]{64}) -->\n")


def make_card(
    weights: Path | FuScoreSpec,
    evaluations: Sequence[str | Path] = (),
    *,
    repo_id: str = "owner/name",
    licence: str = "apache-2.0",
    package: str = LIBRARY,
    space: str = "",
    datasets: Sequence[str] = (),
) -> str:
    """Write the model card of a checkpoint.

    Every number comes from `fuscore.json`, from the evaluations given, or from a file of
    `known_failures/` or `gaming/` that was measured on these very weights (name and SHA-256).

    Args:
        weights: A checkpoint directory; or its `fuscore.json` alone, as read: then no file of
            measurements is included, since the weights cannot be recognised.
        evaluations: Files of `fuscore-train evaluate --out`, each as `KIND:PATH` if the file does
            not say whose ratings it was compared with: see `evaluations.read_evaluations`.
        repo_id: Where the weights will be on the hub, "owner/name".
        licence: The hub's id of the licence of these weights; a base model may ask for its own.
        package: What `pip install` takes to get this package.
        space: Hub id of a Space that shows these weights, if there is one.
        datasets: Hub ids of the data sets that the weights learned from, for the metadata: the
            names in `fuscore.json` may be anything, such as "TNO" or a path.

    Raises:
        CheckpointError: The directory holds no readable `fuscore.json`.
        ValueError: An evaluation cannot be used, or `repo_id` or the base model is no hub id.
    """
    spec = weights if isinstance(weights, FuScoreSpec) else read_spec(weights)
    directory = None if isinstance(weights, FuScoreSpec) else weights
    results = recorded(spec.metrics) + read_evaluations(evaluations)
    data = _metadata(spec, results, licence, datasets)
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # Markdown, not HTML
    )
    text = environment.get_template(TEMPLATE).render(
        spec=spec,
        repo_id=repo_id,
        licence=licence,
        package=package,
        space=space,
        results=table(results),
        intervals=sorted({one.interval() for one in results} - {""}),
        weakest=_weakest(results),
        aspect_srcc=spec.metrics.get("aspect_srcc"),
        acceptance=spec.metrics.get("acceptance"),
        calibration={"skipped": "", "ece": None} | spec.metrics.get("calibration", {}),
        questions=QUESTIONS,
        aspects=[name for name in ASPECTS if name in spec.aspects],
        hub_base=base_is_on_hub(spec),
        known_failures=_measured("known_failures", spec, directory),
        gaming=_measured("gaming", spec, directory),
        versions={name: version(name) for name in (LIBRARY, "torch", "transformers")},
    )
    card = f"---\n{data.to_yaml()}\n---\n\n{text}"
    check_card(card, repo_id=repo_id)
    return card


def check_card(card: str, *, repo_id: str) -> None:
    """Check what huggingface_hub can check of a card without the hub.

    The hub's own validator, `ModelCard.validate`, posts the card to `/api/validate-yaml`;
    `upload.py` calls it before a real upload. Offline, the library parses the YAML block, turns the
    model index into results (each of which has required fields) and back, and knows what a
    repository may be called.

    Raises:
        ValueError: Something is missing, or does not survive the round trip.
    """
    parsed = ModelCard(card)
    content = parsed.data.to_dict()  # type: ignore[no-untyped-call]
    if missing := [name for name in REQUIRED if not content.get(name)]:
        raise ValueError(f"Expected the card's metadata with {', '.join(missing)}")
    if "model-index" in content:
        name, results = model_index_to_eval_results(content["model-index"])
        again = ModelCardData(model_name=name, eval_results=results)
        if again.to_dict()["model-index"] != content["model-index"]:  # type: ignore[no-untyped-call]
            raise ValueError("Expected the card's model index to survive the library's round trip")
    given = [content.get(name) or [] for name in ("base_model", "datasets")]
    ids = [one for some in given for one in ([some] if isinstance(some, str) else some)]
    for hub_id in [repo_id, *ids]:
        if not is_hub_id(hub_id):
            raise ValueError(f"Expected a hub id owner/name, got {hub_id!r}")


def _metadata(
    spec: FuScoreSpec, results: list[Results], licence: str, datasets: Sequence[str]
) -> ModelCardData:
    entries: list[EvalResult] = [entry for one in results for entry in one.eval_results()]
    extra: dict[str, Any] = {}
    if base_is_on_hub(spec):
        extra = {"base_model": spec.base_model, "base_model_relation": RELATIONS[spec.weights]}
    return ModelCardData(
        language="en",
        license=licence,
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=[*TAGS, spec.family, f"{spec.label_kind}-labels"],
        datasets=list(datasets) or None,
        metrics=sorted({entry.metric_type for entry in entries}) or None,
        model_name=spec.name,
        eval_results=entries or None,
        **extra,
    )


def is_hub_id(name: str) -> bool:
    """Whether a name is "owner/name" as the hub allows it."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1


def _weakest(results: list[Results]) -> Results | None:
    """The set with the lowest SRCC, if there are several to choose from."""
    defined = [one for one in results if one.cell("srcc") != "-"]
    if len(defined) < 2:
        return None
    return min(defined, key=lambda one: float(one.content["srcc"]["value"]))


def _measured(folder: str, spec: FuScoreSpec, directory: Path | None) -> str:
    """What was measured on these very weights; empty if nothing was."""
    path = FOLDER / folder / f"{spec.name}.md"
    if directory is None or not path.is_file():
        return ""
    text = path.read_text()
    found = _MEASURED_ON.match(text)
    if found is None:
        raise ValueError(f"Expected `<!-- weights: NAME, sha256 ... -->` on top of {str(path)!r}")
    file = directory / WEIGHTS_FILE
    same = file.is_file() and sha256(file.read_bytes()).hexdigest() == found["digest"]
    return text[found.end() :].strip() if same else ""
