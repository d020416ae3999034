"""Run a long proof, unless nothing that it proves has changed since it last passed.

    python .ci/proof.py NAME COMMAND...
    python .ci/proof.py NAME

`proofs.json` names the files that each proof depends on, and has their hash of when it last passed.
A proof that passes writes the new hash. Commit it, and CI does not repeat the proof until one of
the files changes. Without a command, the exit status says whether that is so.
"""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

CI = Path(__file__).resolve().parent
RECORD = CI / "proofs.json"


def digest(patterns: list[str]) -> str:
    """One hash over the names and the content of all files that match."""
    found = sha256()
    for path in sorted({path for one in patterns for path in CI.parent.glob(one)}):
        if path.is_file() and path.suffix != ".pyc":
            found.update(f"{path.relative_to(CI.parent).as_posix()}\n".encode())
            found.update(sha256(path.read_bytes()).digest())
    return found.hexdigest()


def main(name: str, *command: str) -> int:
    """Run the command of a proof if it has to be; return its exit status, 1 without a command."""
    proof = json.loads(RECORD.read_text())[name]
    before = digest(proof["files"])
    if before == proof["passed"]:
        print(f"{name}: unchanged since it last passed ({before[:12]}), not run")
        return 0
    print(f"{name}: {before[:12]} has not passed yet")
    if not command:
        return 1
    if status := subprocess.run(command, check=False).returncode:
        return status
    record = json.loads(RECORD.read_text())
    record[name]["passed"] = before
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
