"""What the hub of tests/helpers/hub_server.py answers, one method per route."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit


class RefusalError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it delays every small answer by 40 ms
    hub: Any  # set by the hub

    def log_message(self, *args: object) -> None:
        """Say nothing on stderr."""

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def answer(self) -> None:
        """Route a request, or let a fault have it."""
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        asked = self.headers.get("Range")
        self.hub.requests.append(request + (f" Range: {asked}" if asked else ""))
        self.body, self.fault = self.read_body(), self.hub.fault(request)
        try:
            if self.fault is not None and self.fault.kind == "status":
                raise RefusalError(self.fault.status, self.fault.code, self.fault.message)
            for pattern, action in ROUTES:
                if found := re.fullmatch(pattern, request):
                    action(self, **found.groupdict())
                    return
            raise RefusalError(404, message=f"no route for {request}")
        except RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self.send(b"", {k: v for k, v in headers.items() if v}, refusal.status)

    def read_body(self) -> bytes:
        """The request's body, of a given length or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, data: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        """Answer, or break off as the fault has it."""
        fault = self.fault.kind if self.fault else ""
        if fault == "drop":
            self.close_connection = True
            return
        if fault in SPOILT and self.command == "GET":
            data = SPOILT[fault](data)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "cut":
            data, self.close_connection = data[: len(data) // 2], True
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_json(self, content: object, status: int = 200) -> None:
        self.send(json.dumps(content).encode(), {"Content-Type": "application/json"}, status)

    def check_token(self) -> None:
        """Refuse who does not give the hub's token."""
        token = self.hub.token
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            raise RefusalError(401, message="Invalid credentials in Authorization header")

    def repo(self, repo_id: str) -> Any:
        repo = self.hub.repos.get(repo_id)
        try:
            if repo is not None and repo.private:
                self.check_token()
        except RefusalError:
            repo = None  # as on the hub, what is private is not even there
        if repo is None:
            raise RefusalError(404, "RepoNotFound", "Repository not found")
        return repo

    def commit_of(self, repo_id: str, rev: str) -> tuple[str, dict[str, bytes]]:
        repo = self.repo(repo_id)
        sha = repo.refs.get(rev, rev)
        if sha not in repo.commits:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {rev}")
        return sha, repo.commits[sha]

    # From here on, one method per route.

    def info(self, repo_id: str, rev: str | None = None) -> None:
        sha, files = self.commit_of(repo_id, rev or "main")
        self.send_json(
            {"id": repo_id, "sha": sha, "siblings": [{"rfilename": name} for name in files]}
        )

    def tree(self, repo_id: str, rev: str, folder: str = "") -> None:
        _, files = self.commit_of(repo_id, rev)
        if folder:
            raise RefusalError(404, "EntryNotFound", f"{folder} does not exist")
        listing = []
        for name, data in files.items():
            entry = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
            if is_large(name):
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
            listing.append(entry)
        self.send_json(listing)

    def resolve(self, repo_id: str, rev: str, name: str) -> None:
        sha, files = self.commit_of(repo_id, rev)
        headers = {"X-Repo-Commit": sha}
        if name not in files:
            raise RefusalError(404, "EntryNotFound", f"{name} does not exist")
        data = files[name]
        if not is_large(name):
            self.send_part(data, headers | {"ETag": f'"{git_sha1(data)}"'})
            return
        # As on the hub, large files come from another host, which gets no token.
        headers["X-Linked-Etag"], headers["X-Linked-Size"] = f'"{sha256(data)}"', str(len(data))
        self.hub.blobs[sha256(data)] = data
        host = self.hub.url.replace("127.0.0.1", "localhost")
        self.send(b"", headers | {"Location": f"{host}/cdn/{sha256(data)}"}, 302)

    def cdn(self, oid: str) -> None:
        if "Authorization" in self.headers:
            raise RefusalError(400, message="a token was sent to a foreign host")
        self.send_part(self.hub.blobs[oid], {"ETag": f'"{oid}"'})

    def send_part(self, data: bytes, headers: dict[str, str]) -> None:
        """A file, or the rest of it from where a Range begins."""
        begin = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if begin is None:
            self.send(data, headers)
            return
        start, end = int(begin[1]), len(data) - 1
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self.send(data[start:], headers, 206)

    def create(self) -> None:
        self.check_token()
        asked = json.loads(self.body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        status = 409 if repo_id in self.hub.repos else 200
        if status == 200:
            self.hub.put(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"})
            self.hub.repos[repo_id].private = asked.get("visibility") == "private"
        self.send_json({"url": f"{self.hub.url}/{repo_id}"}, status)

    def branch(self, repo_id: str, rev: str) -> None:
        self.check_token()
        repo = self.repo(repo_id)
        if rev in repo.refs:
            raise RefusalError(409, message="Reference already exists")
        repo.refs[rev] = repo.refs["main"]
        self.send_json({})

    def preupload(self, repo_id: str, rev: str) -> None:
        self.check_token()
        _, files = self.commit_of(repo_id, rev)
        modes = []
        for asked in json.loads(self.body)["files"]:
            name = asked["path"]
            mode = {"path": name, "shouldIgnore": False}
            mode["uploadMode"] = "lfs" if is_large(name) else "regular"
            if name in files:
                mode["oid"] = sha256(files[name]) if is_large(name) else git_sha1(files[name])
            modes.append(mode)
        self.send_json({"files": modes})

    def lfs_batch(self, repo_id: str) -> None:
        self.check_token()
        self.repo(repo_id)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            entry = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in self.hub.blobs:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{asked['oid']}"}}
            objects.append(entry)
        self.send_json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if sha256(self.body) != oid:
            raise RefusalError(400, message="content does not match its oid")
        self.hub.blobs[oid] = self.body
        self.send(b"")

    def commit(self, repo_id: str, rev: str) -> None:
        self.check_token()
        files = dict(self.commit_of(repo_id, rev)[1])
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        sha = self.hub.repos[repo_id].commit(files, rev)
        self.send_json({"commitOid": sha, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}"})

    def validate(self) -> None:
        self.send_json({"errors": [], "warnings": []})


_ID, _REV = "(?P<repo_id>[^/]+/[^/]+)", "(?P<rev>[^/]+)"
ROUTES = [
    (f"GET /api/models/{_ID}(/revision/(?P<rev>.+))?", Handler.info),
    (f"GET /api/models/{_ID}/tree/{_REV}(/(?P<folder>.+))?", Handler.tree),
    (f"(GET|HEAD) /{_ID}/resolve/{_REV}/(?P<name>.+)", Handler.resolve),
    ("GET /cdn/(?P<oid>[^/]+)", Handler.cdn),
    ("POST /api/repos/create", Handler.create),
    (f"POST /api/models/{_ID}/branch/(?P<rev>.+)", Handler.branch),
    (f"POST /api/models/{_ID}/preupload/(?P<rev>.+)", Handler.preupload),
    (f"POST /{_ID}.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT /lfs/(?P<oid>[^/]+)", Handler.lfs_put),
    (f"POST /api/models/{_ID}/commit/(?P<rev>.+)", Handler.commit),
    ("POST /api/validate-yaml", Handler.validate),
]
SPOILT = {
    "short": lambda data: data[:-100],
    "long": lambda data: data + bytes(100),
    "corrupt": lambda data: data[:-100] + bytes(b ^ 0xFF for b in data[-100:]),
}


def is_large(name: str) -> bool:
    """Whether the hub stores a file as LFS does."""
    return name.endswith((".safetensors", ".bin"))


def sha256(data: bytes) -> str:
    """Name of a large file in the cache."""
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """Name of any other file in the cache."""
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
