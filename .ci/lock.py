"""Write what pip would install for CI now, every file with its hash: `python .ci/lock.py`.

Run it with a Python like CI's, read the diff of `.ci/locked.txt`, and commit it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

CI = Path(__file__).parent
WANTED = ["-e", f"{CI.parent}[test]", "hatchling>=1.26", "editables", "pip-audit", "cyclonedx-bom"]

OPTIONS = ["-q", "--dry-run", "--ignore-installed", "--report", "-"]

report = subprocess.run(
    [sys.executable, "-m", "pip", "install", *OPTIONS, *WANTED],
    env=os.environ | {"PIP_CONSTRAINT": str(CI / "constraints-cpu.txt")},
    stdout=subprocess.PIPE,
    check=True,
).stdout
lines = []
for item in json.loads(report)["install"]:
    name, version = item["metadata"]["name"], item["metadata"]["version"]
    if name != "fuscore-metric":
        algorithm, digest = next(iter(item["download_info"]["archive_info"]["hashes"].items()))
        lines.append(f"{name.lower()}=={version} --hash={algorithm}:{digest}\n")
(CI / "locked.txt").write_text("".join(sorted(lines)))
