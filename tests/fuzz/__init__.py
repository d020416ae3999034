"""Coverage-guided fuzzing of every reader of files that strangers may have made.

    python -m tests.fuzz.images --keep found corpus \\
        -max_total_time=600 -timeout=10 -rss_limit_mb=3000

from the root of a clone, in an environment with `pip install -e '.[train]' atheris`; `images`,
`spec`, `ratings` and `tables` are the doors. `corpus` is a folder where inputs that reached new
code are kept (the first start fills it with the door's seeds), `found` gets one file for each kind
of finding, and the run goes on. Without `--keep` the first finding ends the run. Further options
are libFuzzer's. `python -m tests.fuzz.images --replay FILE` shows what one input does.

Each door is a module with `one(data)`, which raises if the reader breaks its promise; `seeds()`;
and `mutate(data, rng, havoc)`, which keeps the structure that makes a change worth trying.
`tests/fuzz/test_fuzz.py` runs all of them for a moment without atheris.
"""
