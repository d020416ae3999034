"""The stages by name, in the order in which they run."""

from benchmarks.gpu.run import Tasks
from benchmarks.gpu.stages import embedded, environment, large, peers, pytests, qwen

STAGES: dict[str, Tasks] = {
    "environment": environment.tasks,
    "tests": pytests.tasks,
    "speed": lambda kit: (task for part in (embedded, qwen) for task in part.tasks(kit)),
    "peers": peers.tasks,
    "large": large.tasks,
}
