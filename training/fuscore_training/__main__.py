"""`python -m fuscore_training`: what `accelerate launch -m` starts in every process."""

from fuscore_training.cli import main

main()
