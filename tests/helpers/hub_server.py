"""A simulated Hub on loopback with the endpoints that the real client uses for datasets and models.

Repositories are in memory, with commits, tags and LFS storage. Files with the endings in a new
repository's ``.gitattributes`` are LFS files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".parquet", ".png", ".safetensors")
WRITES = ("/api/repos/create", "/commit/", "/lfs/", "/info/lfs/", "/tag/")


@dataclass
class Repo:
    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    """(id, content by path), oldest first."""
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def add_commit(self, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(files.items())}".encode()).hexdigest()
        self.commits.append((oid, files))
        return oid

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        name = self.tags.get(revision, self.head if revision == "main" else revision)
        return next((commit for commit in self.commits if commit[0] == name), None)


class Hub:
    """State of the Hub.

    Attributes:
        tokens: Namespaces that each token may write to.
        repos: Repositories by id.
        large: LFS files by sha256.
        requests: (method, path) of all requests.
        failing: Status to answer if the path contains the key.
        url: Base URL.
    """

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[str, ...]] = {"hf_writer": ("team",), "hf_reader": ()}
        self.repos: dict[str, Repo] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.failing: dict[str, int] = {}
        self.url = ""

    @property
    def writes(self) -> list[str]:
        """Paths of the requests that change something."""
        return [path for method, path in self.requests if any(part in path for part in WRITES)]


class HttpError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _blob_id(data)}
    if path.endswith(LARGE):
        oid = hashlib.sha256(data).hexdigest()
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"
        )
        entry["oid"] = _blob_id(pointer.encode())
        entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": len(pointer)}
    return entry


def _folders(files: dict[str, bytes]) -> list[dict[str, Any]]:
    names = sorted({path.rsplit("/", 1)[0] for path in files if "/" in path})
    return [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in names]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    # --- requests and answers

    def _answer(self, method: str) -> None:
        hub = self.server.hub
        split = urlsplit(self.path)
        path = split.path
        body = self._body()
        with self.server.lock:
            hub.requests.append((method, path))
            try:
                for part, status in hub.failing.items():
                    if part in path:
                        raise HttpError(status, message="made to fail")
                for verb, pattern, respond in ROUTES:
                    match = re.fullmatch(pattern, path)
                    if match and method in verb:
                        groups = [unquote(group or "") for group in match.groups()]
                        respond(self, body, parse_qs(split.query), *groups)
                        return
                raise HttpError(404, message=f"the simulated Hub has no {method} {path}")
            except HttpError as error:
                headers = {"X-Error-Message": error.message}
                if error.code:
                    headers["X-Error-Code"] = error.code
                self._send(error.status, {"error": error.message}, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    # --- permissions

    def _namespaces(self) -> tuple[str, ...] | None:
        """Namespaces that the token may write to; None without a token."""
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.server.hub.tokens:
            raise HttpError(401, message="Invalid credentials in Authorization header")
        return self.server.hub.tokens[token]

    def _repo(self, repo_id: str, *, write: bool = False) -> Repo:
        namespaces = self._namespaces()
        owner = repo_id.split("/", maxsplit=1)[0]
        repo = self.server.hub.repos.get(repo_id)
        if repo is None or (repo.private and owner not in (namespaces or ())):
            status = 401 if namespaces is None else 404
            raise HttpError(status, "RepoNotFound", "Repository not found")
        if write and owner not in (namespaces or ()):
            raise HttpError(403, message=f"no write access to {owner}")
        return repo

    def _at(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self._repo(repo_id).at(revision)
        if found is None:
            raise HttpError(404, "RevisionNotFound", f"no revision {revision}")
        return found

    # --- endpoints

    def create(self, body: bytes, query: Any) -> None:
        wanted = json.loads(body)
        namespaces = self._namespaces()
        if namespaces is None:
            raise HttpError(401, message="Invalid username or password.")
        if wanted["organization"] not in namespaces:
            raise HttpError(403, message=f"no right to create under {wanted['organization']}")
        repo_id = f"{wanted['organization']}/{wanted['name']}"
        if repo_id in self.server.hub.repos:
            raise HttpError(409, message="You already created this dataset repo")
        repo = Repo(private=wanted.get("visibility") == "private")
        repo.add_commit({".gitattributes": b"*.parquet filter=lfs\n*.png filter=lfs\n"})
        self.server.hub.repos[repo_id] = repo
        self._send(200, {"url": f"{self.server.hub.url}/datasets/{repo_id}"})

    def validate_yaml(self, body: bytes, query: Any) -> None:
        given = json.loads(body)
        content = given["content"]
        metadata = (
            yaml.safe_load(content.split("---\n")[1]) if content.startswith("---\n") else None
        )
        needed = "library_name" if given["repoType"] == "model" else "configs"
        if not isinstance(metadata, dict) or needed not in metadata:
            problem = {"message": f"no {needed} in the metadata"}
            self._send(400, {"errors": [problem], "warnings": []})
        else:
            self._send(200, {"errors": [], "warnings": []})

    def info(self, body: bytes, query: Any, repo_id: str, revision: str) -> None:
        commit, files = self._at(repo_id, revision or "main")
        self._send(
            200,
            {
                "id": repo_id,
                "sha": commit,
                "private": self._repo(repo_id).private,
                "siblings": [{"rfilename": path} for path in sorted(files)],
            },
        )

    def tree(self, body: bytes, query: Any, repo_id: str, revision: str, under: str) -> None:
        _, files = self._at(repo_id, revision)
        inside = [
            entry
            for entry in (*_folders(files), *(_entry(*item) for item in sorted(files.items())))
            if entry["path"].startswith(f"{under}/" if under else "")
        ]
        depth = under.count("/") + 1 if under else 0
        deep = query.get("recursive", ["false"])[0].lower() == "true"
        self._send(200, [e for e in inside if deep or e["path"].count("/") == depth])

    def paths_info(self, body: bytes, query: Any, repo_id: str, revision: str) -> None:
        _, files = self._at(repo_id, revision)
        if self.headers.get("Content-Type", "").startswith("application/json"):
            wanted = json.loads(body)["paths"]
        else:
            wanted = parse_qs(body.decode())["paths"]
        entries = [_entry(path, data) for path, data in files.items() if path in wanted]
        entries += [folder for folder in _folders(files) if folder["path"] in wanted]
        self._send(200, entries)

    def refs(self, body: bytes, query: Any, repo_id: str) -> None:
        repo = self._repo(repo_id)
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": commit}
            for name, commit in repo.tags.items()
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head}
        self._send(200, {"branches": [main], "converts": [], "tags": tags})

    def tag(self, body: bytes, query: Any, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id, write=True)
        name = json.loads(body)["tag"]
        if name in repo.tags:
            raise HttpError(409, message=f"tag {name} exists")
        repo.tags[name] = self._at(repo_id, revision)[0]
        self._send(200, {})

    def preupload(self, body: bytes, query: Any, repo_id: str, revision: str) -> None:
        files = self._repo(repo_id, write=True).files
        answers = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            large = path.endswith(LARGE)
            answer = {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
            }
            if path in files:
                entry = _entry(path, files[path])
                answer["oid"] = entry["lfs"]["oid"] if large else entry["oid"]
            answers.append(answer)
        self._send(200, {"files": answers})

    def lfs_batch(self, body: bytes, query: Any, repo_id: str) -> None:
        self._repo(repo_id, write=True)
        objects = []
        for wanted in json.loads(body)["objects"]:
            if wanted["oid"] not in self.server.hub.large:
                base = f"{self.server.hub.url}/lfs/{wanted['oid']}"
                wanted["actions"] = {"upload": {"href": base}, "verify": {"href": f"{base}/verify"}}
            objects.append(wanted)
        self._send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, query: Any, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise HttpError(400, message="sha256 differs")
        self.server.hub.large[oid] = body
        self._send(200, b"")

    def lfs_verify(self, body: bytes, query: Any, oid: str) -> None:
        stored = self.server.hub.large.get(oid)
        if stored is None or len(stored) != json.loads(body)["size"]:
            raise HttpError(404, message="not stored")
        self._send(200, {})

    def commit(self, body: bytes, query: Any, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id, write=True)
        files = dict(repo.files)
        for line in body.decode().splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header" and value.get("parentCommit", repo.head) != repo.head:
                raise HttpError(412, message="A commit has happened since.")
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.hub.large[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        oid = repo.add_commit(files)
        url = f"{self.server.hub.url}/datasets/{repo_id}/commit/{oid}"
        self._send(200, {"commitUrl": url, "commitOid": oid})

    def resolve(self, body: bytes, query: Any, repo_id: str, revision: str, path: str) -> None:
        commit, files = self._at(repo_id, revision)
        headers = {"X-Repo-Commit": commit}
        if path not in files:
            raise HttpError(404, "EntryNotFound", f"no {path}")
        data = files[path]
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._send(200, data, headers)
            return
        start, end = int(asked[1]), int(asked[2] or len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self._send(206, data[start : end + 1], headers)


_ID = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("POST",), "/api/repos/create", Handler.create),
    (("POST",), "/api/validate-yaml", Handler.validate_yaml),
    (("GET",), rf"/api/(?:datasets|models)/{_ID}(?:/revision/([^/]+))?", Handler.info),
    (("GET",), rf"/api/(?:datasets|models)/{_ID}/tree/([^/]+)(?:/(.+))?", Handler.tree),
    (("POST",), rf"/api/(?:datasets|models)/{_ID}/paths-info/([^/]+)", Handler.paths_info),
    (("GET",), rf"/api/(?:datasets|models)/{_ID}/refs", Handler.refs),
    (("POST",), rf"/api/(?:datasets|models)/{_ID}/tag/([^/]+)", Handler.tag),
    (("POST",), rf"/api/(?:datasets|models)/{_ID}/preupload/([^/]+)", Handler.preupload),
    (("POST",), rf"/api/(?:datasets|models)/{_ID}/commit/([^/]+)", Handler.commit),
    (("POST",), rf"/(?:datasets/)?{_ID}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (("PUT",), r"/lfs/([0-9a-f]+)", Handler.lfs_put),
    (("POST",), r"/lfs/([0-9a-f]+)/verify", Handler.lfs_verify),
    (("GET", "HEAD"), rf"/(?:datasets/)?{_ID}/resolve/([^/]+)/(.+)", Handler.resolve),
]


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub
        self.lock = threading.Lock()


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve an empty Hub until the block ends."""
    hub = Hub()
    server = HubServer(hub)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
