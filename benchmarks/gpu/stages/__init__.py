"""The stages by name, in the order in which they run."""

from collections.abc import Iterator

from benchmarks.gpu.kit import Kit
from benchmarks.gpu.run import Task, Tasks
from benchmarks.gpu.stages import device_options, embedded, environment, large, peers, pytests, qwen


def speed(kit: Kit) -> Iterator[Task]:
    """What matters most comes first: what is left out of a slow run is at the end."""
    for part in (embedded, device_options, qwen):
        yield from part.tasks(kit)
    yield Task("torch.compile", lambda: device_options.compiled(kit), 20)


STAGES: dict[str, Tasks] = {
    "environment": environment.tasks,
    "tests": pytests.tasks,
    "speed": speed,
    "peers": peers.tasks,
    "large": large.tasks,
}
