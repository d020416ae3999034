"""What could be said of FuScore on a GPU, and which measurements prove it."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.gpu.plan import COUNTED


@dataclass(frozen=True)
class Number:
    """A number that belongs to a claim; of several that fit, the largest is shown.

    Attributes:
        value: Regular expression of the value's whole name.
        words: With `{}` and a format for the number.
        measurement: Regular expression of the whole name, among those that prove the claim.
    """

    value: str
    words: str
    measurement: str = ".*"


@dataclass(frozen=True)
class Claim:
    """One line of the manual.

    Attributes:
        text: What is claimed.
        stage: Where it is measured.
        proof: Regular expression of the whole names of the measurements that prove it: none may
            have failed, and one must have run.
        numbers: What to show of them.
    """

    text: str
    stage: str
    proof: str
    numbers: tuple[Number, ...] = ()


def _test(text: str, proof: str, *numbers: Number) -> Claim:
    return Claim(text, "tests", f".*::{proof}(\\[.*\\])?", numbers)


def _golden(dtype: str, tf32: str) -> Number:
    words = f"{dtype}{' with TF32' if tf32 == 'on' else ''} moves no score by more than "
    return Number(f"deviation, {dtype}, TF32 {tf32}, .*", words + "{:.1g}")


def _shape(name: str) -> Claim:
    return Claim(
        f"scoring with a random model of {name}'s shape in bfloat16",
        "speed",
        _pattern(name),
        (
            Number("model", "{:.1f} triples/s"),
            Number("share of a matrix product", "{:.0f} % of a matrix product's rate"),
            Number("speed-up", "sources read once {:.2f} times as fast"),
            Number("counted limit", "by counted FLOPs {:.2f}"),
            Number("peak memory", "{:.1f} GiB beside the weights"),
        ),
    )


def _pattern(name: str) -> str:
    """A name as a regular expression; spaces stay readable."""
    return name.replace(".", "\\.")


CLAIMS = (
    _test(
        "golden scores",
        "test_golden_scores",
        _golden("float32", "off"),
        _golden("float32", "on"),
        _golden("bfloat16", "off"),
        _golden("float16", "off"),
    ),
    _test("every door, CUDA tensors in and CUDA scores out", "test_every_door.*"),
    _test(
        "gradients, those of the CPU",
        "test_gradients_(of_all_images|through_the_reward).*",
        Number("relative error of the gradient.*", "relative error up to {:.1g}"),
    ),
    _test("autocast around the reward", "test_autocast_changes.*"),
    _test("`torch.compile` of a fusion network around the reward", "test_a_compiled_step.*"),
    _test("files decoded ahead into pinned memory", "test_files_are_decoded_ahead.*"),
    _test("no wait for the GPU in the scoring loop", "test_(scoring|the_loop)_does_not_wait.*"),
    _test("batches halved when memory runs out", "test_batches_are_halved.*"),
    _test("two streams at once", "test_two_streams.*"),
    _test("DataParallel and DistributedDataParallel, one process", "test_.*data_parallel"),
    Claim(
        "speed of the embedded weights from tensors, 640x480",
        "speed",
        "tensors, .*",
        tuple(
            Number("score", f"{{:.0f}} triples/s in {dtype}", f"tensors, {dtype}, .*")
            for dtype in ("float32", "bfloat16", "float16")
        ),
    ),
    Claim(
        "speed from files",
        "speed",
        "files, .*",
        (
            Number("score", "{:.0f} triples/s"),
            Number("decoding alone", "decoding alone {:.0f}"),
        ),
    ),
    Claim(
        "`rank`, sixteen candidates",
        "speed",
        "rank",
        (
            Number("speed-up", "{:.2f} times as fast as without sharing"),
            Number("counted limit", "by counted FLOPs {:.2f}"),
        ),
    ),
    Claim("a reward step", "speed", "reward step", (Number("step", "{:.2f} ms per triple"),)),
    Claim(
        "`model.compile()`",
        "speed",
        "torch\\.compile",
        (
            Number("compiled", "{:.0f} triples/s"),
            Number("eager", "without {:.0f}"),
            Number("first batch", "after {:.0f} s of compiling"),
        ),
    ),
    Claim(
        "`rank` against one triple per call on the same backbone",
        "peers",
        "one triple per call, embedded",
        (Number("rank is faster", "{:.1f} times as fast"),),
    ),
    Claim(
        "`rank` against a reward model of ViT-L's size",
        "peers",
        "ViT-L reward model, .*",
        (Number("rank is faster", "{:.0f} times as fast"),),
    ),
    _shape("Qwen3-VL-2B"),
    _shape("Qwen2.5-VL-7B"),
    Claim(
        "a LoRA training step of Qwen2.5-VL-7B's shape, 4 scenes x 4 methods",
        "speed",
        _pattern("LoRA step, Qwen2.5-VL-7B"),
        (
            Number("step", "{:.1f} s"),
            Number("peak memory", f"{{:.1f}} GiB in all (counted: {COUNTED})"),
        ),
    ),
    Claim("device maps, parts on the CPU", "large", "device map, .*"),
    Claim("bitsandbytes, 4 bits", "large", "bitsandbytes, 4 bits"),
    Claim("FSDP, torch's `fully_shard`, one process", "large", "FSDP, .*"),
    Claim("accelerate's DDP, one process", "large", "accelerate launch, ddp\\.yaml"),
    Claim("accelerate's FSDP, one process", "large", "accelerate launch, fsdp\\.yaml"),
    Claim("DeepSpeed, one process", "large", "accelerate launch, deepspeed\\.yaml"),
)
"""In the manual's order. Several GPUs, and real weights of the big families, are beyond the kit."""
