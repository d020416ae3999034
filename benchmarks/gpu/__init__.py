"""One command that runs all of FuScore on a GPU: `python -m benchmarks.gpu --out DIR`.

See README.md beside this file. Nothing here needs an installed package of ours, a network or data.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

# Not installed where this runs, so the training package has to be found in its folder.
sys.path.append(str(REPOSITORY / "training"))
