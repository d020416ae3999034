"""One command that runs all of FuScore on a GPU: `python -m benchmarks.gpu --out DIR`.

See README.md beside this file. Nothing here needs a network or data, nor an installed package of
ours: where there is none, `PYTHONPATH=training` before the command lets it find the training code.
"""
