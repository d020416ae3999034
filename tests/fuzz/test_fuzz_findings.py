"""What fuzzing found, each made as small as it gets; before, every one of these was another error.

`tests/fuzz` says how to look for more. Two further findings are `test_turned_tiff_of_one_channel`
and the JSON lines of `test_manifest.py`.
"""

import json
import struct
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fuscore_training.ratings import SCORE_COLUMNS, RatingsError, read_ratings, split_by_scene
from PIL import Image
from pyarrow import parquet

from fuscore_metric import InputError
from fuscore_metric.images.convert import as_images
from fuscore_metric.images.lazy import open_pictures
from fuscore_metric.results.read import read_results
from fuscore_metric.results.rows import COLUMNS
from fuscore_metric.results.run_folder import JOURNAL_FILE, SETTINGS_FILE
from fuscore_metric.runs.manifest import read_manifest
from tests.fuzz import tables
from tests.fuzz.harness import folder
from tests.helpers.image_files import chunk, encoded

DEEP = b"[" * 100_000

# Images


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\0\0")


@pytest.mark.parametrize(
    "before", [b"M" + bytes(30), exif_of(8), b"", struct.pack(">2sHII", b"MM", 42, 8, 0)]
)
@pytest.mark.parametrize("behind", [1, 3, 6])
@pytest.mark.filterwarnings("ignore")
def test_png_with_exif_before_and_behind_its_pixels(before, behind, tmp_path):
    """The header was refused, or gave another size than the pixels then had."""
    good = encoded("PNG", Image.fromarray(np.zeros((40, 48), np.uint8)))
    start, end = good.index(b"IDAT") - 4, good.index(b"IEND") - 4
    parts = good[:start], chunk(b"eXIf", before), good[start:end], chunk(b"eXIf", exif_of(behind))
    path = tmp_path / "image.png"
    path.write_bytes(b"".join(parts) + good[end:])
    (picture,) = open_pictures(path, "fused")
    assert picture.shape == tuple(as_images(path, "fused")[0].shape)
    assert picture.shape == ((3, 48, 40) if behind == 6 else (3, 40, 48))


# Manifests


def test_a_line_that_is_no_object_does_not_end_the_process(tmp_path):
    """Segmentation fault in pyarrow 26.0.1's reader of JSON, where its schema is given."""
    for number, first in enumerate(("null", "1", "[]", '"a"')):
        lines = f'{first}\n{{"ir": "a", "vis": "b", "fused": "m/c"}}\n'
        (tmp_path / f"{number}.jsonl").write_text(lines)
    code = (
        "import sys; from pathlib import Path; from fuscore_metric.runs.manifest import *\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try: read_manifest(path)\n"
        "    except InputError as error: print(error)"
    )
    line = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.count("line 1: not an object") == 4


def text_that_is_none(count):
    """Text for arrow, which does not look at it; the bytes are no UTF-8."""
    offsets = pa.py_buffer(np.arange(count + 1, dtype=np.int32).tobytes())
    return pa.StringArray.from_buffers(count, offsets, pa.py_buffer(b"\xe9" * count))


def parquet_of(path, columns, **metadata):
    table = pa.Table.from_arrays(list(columns.values()), list(columns))
    found = {key.encode(): value for key, value in metadata.items()}
    parquet.write_table(table.replace_schema_metadata(found), path)
    return path


def refused(read, path, words):
    with pytest.raises(InputError, match=words) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1


def test_manifest_of_text_that_is_none(tmp_path):
    names = {name: text_that_is_none(1) for name in ("ir", "vis", "fused")}
    refused(read_manifest, parquet_of(tmp_path / "m.parquet", names), "UTF")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ir,vis,fused,\x80\na,b,c,d\n", "utf-8"),
        (b"ir,vis,fused,fused\na,b,m/c,m/d\n", "fused twice"),
        (b"scene,\x0c,\x1c\na,b,c\n", r"without ir, vis, fused: it has scene, '\\x0c', '\\x1c'"),
    ],
)
def test_manifest_with_odd_columns(content, words, tmp_path):
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    refused(read_manifest, path, words)


# Results


def results(**changed):
    columns = {"scene": ["a"], "method": ["m"], "score": [3.0], "std": [1.0]}
    return {name: pa.array(values) for name, values in (columns | changed).items()}


@pytest.mark.parametrize("settings", [b"[]", b"null", b"3", DEEP])
def test_settings_that_are_none(settings, tmp_path):
    path = parquet_of(tmp_path / "r.parquet", results(), fuscore=settings)
    refused(read_results, path, "r.parquet")


@pytest.mark.parametrize("scene", [[1], [None], [["a"]], [{"a": 1}], [b"a"]])
def test_scenes_that_are_no_text(scene, tmp_path):
    path = parquet_of(tmp_path / "r.parquet", results(scene=scene))
    refused(read_results, path, "text as `scene`")


def test_a_column_twice(tmp_path):
    table = pa.Table.from_arrays([*results().values(), pa.array(["b"])], [*results(), "scene"])
    parquet.write_table(table, tmp_path / "r.parquet")
    refused(read_results, tmp_path / "r.parquet", "r.parquet")


@pytest.fixture
def run():
    """A run folder that can be read."""
    seed = next(seed for seed in tables.seeds() if seed.startswith(tables.RUN))
    tables.one(seed)
    return folder() / "run"


@pytest.mark.parametrize(
    "line", [DEEP, b"[]", b"3", *({"scene": x} for x in (1, None, ["a"])), {"ir": {}}]
)
def test_a_line_of_a_journal_that_is_no_row_is_left_out(run, line, caplog):
    before = len(read_results(run).table)
    if isinstance(line, dict):
        usual = dict.fromkeys(COLUMNS, "a")
        line = json.dumps(usual | line).encode()
    with (run / JOURNAL_FILE).open("ab") as file:
        file.write(line + b"\n")
    assert len(read_results(run).table) == before
    assert "left out line 5" in caplog.text


def test_a_journal_of_names_that_are_no_utf_8(run):
    path = run / JOURNAL_FILE
    row = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(row | {"scene": "caf\udce9"}) + "\n")
    assert read_results(run).table["scene"].tolist() == ["caf\\xe9"]


def test_deep_settings_of_a_run(run):
    (run / SETTINGS_FILE).write_bytes(DEEP)
    refused(read_results, run, "settings")


# Ratings


def write_ratings_file(folder, frame, meta=b'{"label_kind": "human", "description": ""}'):
    pd.DataFrame(frame).to_parquet(folder / "r.parquet")
    (folder / "r.meta.json").write_bytes(meta)
    return folder / "r.parquet"


def ratings(**changed):
    names = {"scene": ["a", "b"], "method": ["m", "m"], "fused": ["f", "g"]}
    sources = {"ir": ["i", "j"], "vis": ["v", "w"]}
    return names | sources | {name: [3.0, 4.0] for name in SCORE_COLUMNS} | changed


def test_deep_description_of_ratings(tmp_path):
    path = write_ratings_file(tmp_path, ratings(), DEEP)
    with pytest.raises(RatingsError, match="RecursionError"):
        read_ratings(path, check_files=False)


@pytest.mark.parametrize(
    "other", [np.array([1, 2], np.float16), [["a"], ["b"]], pd.Categorical(["a", "b"]), [None, "a"]]
)
def test_other_scenes_of_any_kind(other, tmp_path):
    """They name no scene, or one; a split was another error before."""
    table = read_ratings(
        write_ratings_file(tmp_path, ratings(other_scene=other)), check_files=False
    )
    parts = split_by_scene(table, scenes={"train": ["a"], "val": ["b"], "test": []})
    assert sum(map(len, parts.values())) in (1, 2)


# Parquet


def written(table):
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer)
    return buffer.getvalue().to_pybytes()


READERS = {"manifest": read_manifest, "results": read_results, "ratings": read_ratings}


def refusal(reader, content, folder):
    path = folder / "table.parquet"
    path.write_bytes(content)
    (folder / "table.meta.json").write_text('{"label_kind": "proxy", "description": "none"}')
    try:
        READERS[reader](path)
    except (InputError, RatingsError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("reader", READERS)
def test_a_changed_number_of_rows_takes_no_memory(reader, tmp_path):
    """256 GiB were asked for."""
    good = written(pa.table({name: ["a", "b"] for name in ("ir", "vis", "fused")}))
    two = b"\x16\x04"  # Thrift: a field of 64 bits, 2
    places = [place for place in range(len(good)) if good.startswith(two, place)]
    changed = [good[:place] + b"\x16\x7e" + good[place + 2 :] for place in places]
    told = [refusal(reader, content, tmp_path) for content in changed]
    # The file's number, and its row group's.
    assert sum("it does not say how many rows it has" in text for text in told) == 2


@pytest.mark.parametrize("reader", READERS)
def test_more_rows_than_a_file_can_hold(reader, tmp_path):
    nothing = pa.nulls(1_000_000, pa.string())
    content = written(pa.table(dict.fromkeys(("ir", "vis", "fused"), nothing)))
    assert "1000000 rows cannot be in so small a file" in refusal(reader, content, tmp_path)
