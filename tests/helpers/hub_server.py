"""A hub on loopback that huggingface_hub 2.4 can load from and upload to, with faults on demand.

`hub_fixture` (the fixture `hub`) starts one and points huggingface_hub *in this process* at it,
and so transformers and peft, which go through the same constants. Those are read from the
environment at import, so the fixture patches the constants themselves: endpoint, cache, token
file, offline mode (CI sets HF_HUB_OFFLINE=1), xet (its storage protocol is not spoken here). It
sets the environment variables as well, for subprocesses. Import it in a test file:

    from tests.helpers.hub_server import checkpoint_fixture, hub_fixture  # noqa: F401
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, file_download, hf_api
from huggingface_hub.utils import _http

from tests.helpers.hub_routes import Handler, sha256
from tests.helpers.tiny_model import tiny_fuscore

Files = dict[str, bytes]
CHUNK = 4096  # bytes that the client writes at a time: a file of kilobytes can be cut between two


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path" matches `where`.

    Kinds: "status" answers `status` with the headers `X-Error-Code` and `X-Error-Message`; "cut"
    closes the connection after half of what was asked for, "drop" before anything; "short",
    "long" and "corrupt" send a file that is not what was promised: smaller, larger, or of the
    same size.
    """

    kind: str
    where: str
    times: int | None = None  # for ever
    status: int = 500
    code: str = ""
    message: str = ""


@dataclass
class Repo:
    """Commits (hash -> files) and branches (name -> hash)."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Files, branch: str) -> str:
        tree = "".join(f"{name} {sha256(data)}\n" for name, data in sorted(files.items()))
        sha = hashlib.sha1(f"{len(self.commits)} {tree}".encode()).hexdigest()
        self.commits[sha], self.refs[branch] = dict(files), sha
        return sha


class Hub:
    """The hub's state, and what tests do with it.

    Attributes:
        url: Its address, for `HF_ENDPOINT`.
        repos: Repositories by id.
        token: If set, writing, and reading what is private, needs this access token.
        faults: What goes wrong; the first that matches a request counts.
        requests: "METHOD /path", with " Range: ..." if it had one, in order.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.token: str | None = None
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        serve = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        serve.start()

    def close(self) -> None:
        """Be gone: from now on connections are refused."""
        huggingface_hub.close_session()  # a connection that is kept alive would go on
        self.server.shutdown()
        self.server.server_close()

    def put(self, repo_id: str, source: Path | Files, branch: str = "main") -> str:
        """Make a repository of a directory's files, or a further commit in it; return its hash."""
        if isinstance(source, Path):
            source = contents(source)
        return self.repos.setdefault(repo_id, Repo()).commit(source, branch)

    def files(self, repo_id: str, branch: str = "main") -> Files:
        """What a branch holds."""
        repo = self.repos[repo_id]
        return repo.commits[repo.refs[branch]]

    def fail(self, kind: str, where: str = "", **options) -> None:
        """Let something go wrong from now on; see `Fault`."""
        self.faults.append(Fault(kind, where, **options))

    def heal(self) -> None:
        """Let everything go well from now on."""
        self.faults.clear()

    def asked(self, pattern: str) -> list[str]:
        """Those requests that match."""
        return [request for request in self.requests if re.search(pattern, request)]

    def fault(self, request: str) -> Fault | None:
        for fault in self.faults:
            if fault.times != 0 and re.search(fault.where, request):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None


def contents(folder: Path) -> Files:
    """The files of a directory, not of its subdirectories."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(name="checkpoint", scope="session")
def checkpoint_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint as `save_pretrained` writes it: read only."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_fuscore(folder).save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture(name="hub")
def hub_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without repositories; huggingface_hub talks to it and caches under `tmp_path`."""
    hub, home = Hub(), tmp_path / "hf_home"
    for name, value in {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name, constant in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "DOWNLOAD_CHUNK_SIZE": CHUNK,
    }.items():
        monkeypatch.setattr(constants, name, constant)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)  # that of the module's functions
    no_wait = SimpleNamespace(sleep=lambda seconds: None)  # between retries
    monkeypatch.setattr(_http, "time", no_wait)
    monkeypatch.setattr(file_download, "time", no_wait)
    huggingface_hub.close_session()  # one of before may hold a proxy
    yield hub
    hub.close()
