"""Parquet files of unknown origin: whether the sizes that they claim can be true."""

from __future__ import annotations

from pathlib import Path

MOST_ROWS_A_BYTE = 64
"""Far beyond what triples of paths, scores or ratings compress to."""


def check_rows(path: Path) -> None:
    """Refuse files that claim more rows than they hold: memory for them is taken before reading.

    A file of 1.4 kB in which one number was changed made pyarrow 26 ask for 256 GiB.

    Args:
        path: A file, or a folder of files.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not Parquet, or its numbers of rows contradict each other or its size.
    """
    from pyarrow import parquet

    for name in parquet.ParquetDataset(path, partitioning=None).files:
        found = parquet.read_metadata(name)
        groups = [found.row_group(number) for number in range(found.num_row_groups)]
        if found.num_rows != sum(group.num_rows for group in groups):
            raise ValueError(f"{name}: damaged, it does not say how many rows it has")
        if found.num_rows > MOST_ROWS_A_BYTE * Path(name).stat().st_size:
            raise ValueError(f"{name}: {found.num_rows} rows cannot be in so small a file")
