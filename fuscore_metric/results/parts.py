"""Rows of many processes -> Parquet files that appear whole or not at all, and back.

`parts/BBBBB/SSSS-BUCKET-DIGEST.parquet` has rows of one bucket of source pairs, written in session
S: each start of a run is a session. The digest is of the scenes and methods in it, so that work
done twice, after a process died, replaces its file. Of rows of one scene and method the latest
session's counts. `parts/_plan.json` keeps the number of buckets, which must not change.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fuscore_metric.errors import InputError
from fuscore_metric.results.rows import LATER, NAMES, Entry, Row
from fuscore_metric.results.run_folder import (
    PARTS_FOLDER,
    Key,
    cannot_write,
    is_done,
    replace_text,
    scored,
)
from fuscore_metric.results.stamps import Stamps
from fuscore_metric.results.tables import schema, to_table
from fuscore_metric.runs.parquet_files import check_rows

if TYPE_CHECKING:
    import pyarrow as pa

STAMP = "stamp"
"""Column of a part beside those of the results: what the files were, as JSON."""
PLAN_FILE = "_plan.json"
BUCKETS_A_FOLDER = 256
PART_NAME = re.compile(r"(?P<session>\d+)-\d+-[0-9a-f]+\.parquet")


@dataclass(frozen=True)
class Plan:
    """How the rows of a run are divided.

    Attributes:
        buckets: Buckets of source pairs.
        session: Number of this start of the run, from 1.
    """

    buckets: int
    session: int

    def bucket(self, ir: str, vis: str) -> int:
        """Number of the bucket of a source pair: the same in every process and session."""
        return zlib.crc32(f"{ir}\0{vis}".encode()) % self.buckets


def begin_session(folder: Path, buckets: int) -> Plan:
    """Number a new start of the run in a locked folder; the first one's number of buckets stays.

    Raises:
        InputError: The plan cannot be read or written.
    """
    path = folder / PARTS_FOLDER / PLAN_FILE
    try:
        path.parent.mkdir(exist_ok=True)
        before = Plan(**json.loads(path.read_text())) if path.exists() else Plan(buckets, 0)
    except OSError as error:
        raise cannot_write(path, error) from error
    except (ValueError, TypeError) as error:
        raise InputError(f"Expected the plan of a run in {str(path)!r}: {error}") from error
    plan = replace(before, session=before.session + 1)
    replace_text(path, json.dumps(asdict(plan)) + "\n")
    return plan


@dataclass(frozen=True)
class Bucket:
    """The parts of one bucket.

    Attributes:
        folder: The run folder.
        number: The bucket's.
        session: That of new rows.
        measures: Classic measures that are asked for.
    """

    folder: Path
    number: int
    session: int
    measures: tuple[str, ...] = ()
    _asked: Stamps = field(default_factory=Stamps, init=False, repr=False, compare=False)

    def waiting(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries without a row of this session that lack something or whose files changed."""
        known = self._rows()
        found = [entry for entry in entries if not self._is_known(entry, known.get(entry.key))]
        self._asked.take(found)
        return found

    def scored(self, waiting: Sequence[Entry]) -> dict[Key, Row]:
        """The rows of entries that lack measures only."""
        rows = {key: row for key, (_, row) in self._rows().items()}
        return scored(waiting, rows, {key: json.loads(row[STAMP]) for key, row in rows.items()})

    def add(self, rows: Sequence[Row], settings: str) -> Path:
        """Write rows as a part.

        Args:
            rows: The rows.
            settings: JSON to keep in the file.

        Raises:
            InputError: They cannot be written, such as on a full disk.
        """
        import pyarrow as pa

        table = to_table(rows, settings)
        stamps = pa.array([json.dumps(self._asked.of(row)) for row in rows], pa.string())
        keys = sorted([row[name] for name in NAMES] for row in rows)
        digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:12]
        path = self._parent / f"{self.session:04}-{self.number:08}-{digest}.parquet"
        try:
            _write_whole(table.append_column(STAMP, stamps), path)
        except OSError as error:
            raise cannot_write(path, error) from error
        return path

    @property
    def _parent(self) -> Path:
        return self.folder / PARTS_FOLDER / f"{self.number // BUCKETS_A_FOLDER:05}"

    def _rows(self) -> dict[Key, tuple[int, Row]]:
        """The latest row of each scene and method, and its session."""
        from pyarrow import parquet

        found: dict[Key, tuple[int, Row]] = {}
        for path in sorted(self._parent.glob(f"*-{self.number:08}-*.parquet")):
            session = int(path.name.partition("-")[0])
            for row in parquet.read_table(path, partitioning=None).to_pylist():
                found[row["scene"], row["method"]] = session, row
        return found

    def _is_known(self, entry: Entry, known: tuple[int, Row] | None) -> bool:
        if known is None:
            return False
        session, row = known
        mark = json.loads(row[STAMP])
        return session == self.session or is_done(entry, row, mark, self.measures)


def read_parts(folder: Path, settings: str = "{}") -> pa.Table:
    """Read the rows of a run that goes on or was stopped: one per scene and method, sorted by them.

    Args:
        folder: The run folder.
        settings: Those of the run as JSON, which name its measures.

    Returns:
        Columns of the results table.
    """
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    form = schema(settings)
    later = {*LATER, *json.loads(settings).get("measures", [])}
    tables, sessions = [form.empty_table()], []
    for path in sorted((folder / PARTS_FOLDER).glob("*/*.parquet")):
        if (name := PART_NAME.fullmatch(path.name)) is not None:
            check_rows(path)
            there = set(parquet.read_schema(path).names)
            columns = [name for name in form.names if name in there or name not in later]
            tables.append(parquet.read_table(path, columns=columns, partitioning=None))
            sessions.append(np.full(tables[-1].num_rows, int(name["session"])))
    table = pa.concat_tables(tables, promote_options="default").replace_schema_metadata(None)
    keys = table.select(list(NAMES)).to_pandas()
    keys["session"] = np.concatenate(sessions) if sessions else []
    keys = keys.sort_values([*NAMES, "session"], kind="stable")
    return table.take(pa.array(keys.index[~keys.duplicated(list(NAMES), keep="last")]))


def _write_whole(table: Any, path: Path) -> None:
    """Write a Parquet file under another name, wait for the disk, and rename it."""
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with new.open("wb") as file:
            parquet.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
