"""The Space's app as a person uses it, in a browser."""

import hashlib
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import fuscore_metric
from fuscore_metric import score
from fuscore_metric.prompts import LEVEL_WORDS

pytest.importorskip("gradio", reason="gradio is not installed (extra [demo])")

pytestmark = pytest.mark.slow

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@pytest.fixture(scope="module")
def seen():
    """What the app was given and said: filled by the served app."""
    return []


@pytest.fixture(scope="module")
def server(space, model, seen):
    """The app on a free port of loopback; sockets to elsewhere are refused and remembered."""
    app, foreign = space["app"], []
    with pytest.MonkeyPatch.context() as patch:
        real_score, real_connect = app.score, socket.socket.connect

        def score(used, *slots_and_aspect):
            found = real_score(used, *slots_and_aspect)
            seen.append((slots_and_aspect, found))
            return found

        def connect(self, address):
            if isinstance(address, tuple) and address[0] not in LOOPBACK:
                foreign.append(address)
                raise OSError("no network in tests")
            return real_connect(self, address)

        patch.setattr(app, "score", score)
        patch.setattr(socket.socket, "connect", connect)
        blocks = app.build_app(model)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = app.launch_options() | {"server_name": "127.0.0.1", "server_port": port}
        _, url, _ = blocks.launch(**options, prevent_thread_lock=True, quiet=True)
        yield url
        blocks.close(verbose=False)
    assert foreign == []


@pytest.fixture
def open_page(browser, server):
    """Open the app at a size; the test fails if the page complains or asks another host."""
    contexts, complaints = [], []

    def open_one(width=1280, scheme="light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        context.on("request", lambda request: foreign(request, complaints))
        page = context.new_page()
        page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server)
        page.wait_for_selector("#score")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def foreign(request, complaints):
    address = urlsplit(request.url)
    if address.scheme not in ("data", "blob") and address.hostname != "127.0.0.1":
        complaints.append(f"asked {request.url}")


def fits(page):
    wide, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    return wide <= window


def background(page):
    colour = page.evaluate("getComputedStyle(document.querySelector('.fs-card')).backgroundColor")
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_person_scores_and_ranks(open_page, model, files, tmp_path, width, scheme):
    names = ("fused_good", "fused_noisy")
    scores = score(files["ir"], files["vis"], [files[name] for name in names], model=model)
    good, noisy = (f"{value:.3f}" for value in scores.tolist())
    page = open_page(width, scheme)
    statement = page.locator("#labels")
    assert "MODEL ratings" in statement.inner_text()
    page.click("#example-good")
    page.wait_for_function("document.querySelectorAll('#ir img, #vis img, #fused img').length == 3")
    page.click("#score")
    page.wait_for_selector("#fs-score-card")
    card = page.locator("#fs-score-card").inner_text()
    assert re.search(rf"{float(good):.2f}\b", card)
    for word in LEVEL_WORDS:
        assert word in card
    page.wait_for_selector("#fs-legend", timeout=60_000)
    page.wait_for_selector("#map img")
    assert statement.is_visible()
    assert fits(page)
    assert (background(page) > 128) == (scheme == "light")
    page.screenshot(path=tmp_path / "one_fusion.png", full_page=True)

    page.get_by_role("tab", name="Candidates").click()
    page.set_input_files("#candidates-ir input[type=file]", files["ir"])
    page.set_input_files("#candidates-vis input[type=file]", files["vis"])
    page.set_input_files(
        "#candidates input[type=file]", [files["fused_noisy"], files["fused_good"]]
    )
    page.wait_for_function("document.querySelectorAll('#candidates tr.file').length == 2")
    page.wait_for_selector("#candidates-ir img")
    page.wait_for_selector("#candidates-vis img")
    page.click("#rank")
    page.wait_for_selector("#fs-ranking")
    lines = page.locator("#fs-ranking tbody tr").all_inner_texts()
    assert [line.split()[1] for line in lines] == ["fused_good.png", "fused_noisy.png"]
    assert [line.split()[2] for line in lines] == [good, noisy]
    page.wait_for_function("document.querySelectorAll('#gallery img').length == 2")
    assert statement.is_visible()
    assert fits(page)
    page.screenshot(path=tmp_path / "candidates.png", full_page=True)
    with page.expect_download() as waiting:
        page.click("#csv")
    waiting.value.save_as(tmp_path / "ranking.csv")
    assert (tmp_path / "ranking.csv").read_text().count("MODEL ratings") == 2


def test_an_upload_arrives_bit_by_bit(open_page, model, seen, files):
    page = open_page()
    triple = files["thermal.png"], files["vis"], files["jpeg"]
    for slot, path in zip(("ir", "vis", "fused"), triple, strict=True):
        page.set_input_files(f"#{slot} input[type=file]", path)
        page.wait_for_selector(f"#{slot} img")
    page.get_by_label("Sharpness").check()
    page.click("#score")
    page.wait_for_selector("#fs-score-card")
    (*slots, aspect), found = seen[-1]
    assert aspect == "sharpness"
    for slot, path in zip(slots, triple, strict=True):
        assert digest(slot["path"]) == digest(path)
    expected = fuscore_metric.score(*triple, model=model, aspect="sharpness").item()
    assert found.score == pytest.approx(expected, abs=1e-6)
    assert f"{expected:.2f}" in page.locator("#fs-score-card").inner_text()
    # Nothing of it may stand beside other images, nor come late: the map is still being made.
    page.click("#ir [aria-label='Remove Image']")
    page.wait_for_selector("#fs-score-card", state="detached")
    page.wait_for_timeout(8000)
    assert page.locator("#fs-legend").count() == page.locator("#map img").count() == 0


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("bad", "words"), [("small", "same height and width"), ("text", "not in an image format")]
)
def test_a_bad_file_is_explained(open_page, files, bad, words):
    page = open_page()
    for slot, name in (("ir", "ir"), ("vis", "vis"), ("fused", bad)):
        page.set_input_files(f"#{slot} input[type=file]", files[name])
        page.wait_for_selector(f"#{slot} img")
    page.click("#score")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert words in toast.inner_text()
    assert "Traceback" not in page.content()
    assert page.locator("#fs-score-card").count() == 0


def test_a_doubt_is_told_beside_the_score(open_page, files):
    page = open_page()
    for slot, name in (("ir", "vis"), ("vis", "ir"), ("fused", "fused_good")):
        page.set_input_files(f"#{slot} input[type=file]", files[name])
        page.wait_for_selector(f"#{slot} img")
    page.click("#score")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "swapped" in toast.inner_text()
    page.wait_for_selector("#fs-score-card")
