"""`python -m fuscore_metric.cli`: the `fuscore` command without its script."""

from fuscore_metric.cli import main

main()
