"""For workers of tests that start several processes."""

import os


def leave() -> None:
    """End this process at once, its results being written.

    Taking gloo apart (torch 2.13) can hang: its thread wants the interpreter's lock to forget the
    last message while the main thread, holding that lock, waits for the thread.
    """
    os._exit(0)
