"""Half a file must not become half a picture, whatever other libraries have set in Pillow."""

from __future__ import annotations

import threading

from PIL import ImageFile

from fuscore_metric.compute.forking import in_forked


class _StrictLoading:
    """While any thread is inside, Pillow raises on truncated files.

    Other libraries set `ImageFile.LOAD_TRUNCATED_IMAGES = True` for the whole process, after which
    half a file decodes silently to half a picture, and that would get a score.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_lenient = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._was_lenient = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._was_lenient:
                ImageFile.LOAD_TRUNCATED_IMAGES = True

    def start_anew(self) -> None:
        """In a forked process: threads that were inside, and may have held the lock, are gone."""
        if self._inside and self._was_lenient:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
        self.__init__()  # type: ignore[misc]


strict_loading = _StrictLoading()
in_forked(strict_loading.start_anew)
