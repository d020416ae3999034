"""What `accelerate launch` starts: `fuscore-train`, then a line on how it was distributed."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from fuscore_training.cli import main

    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    from accelerate.state import AcceleratorState

    state = AcceleratorState()
    print(f"distributed type: {state.distributed_type.value}")
    sys.stdout.flush()
