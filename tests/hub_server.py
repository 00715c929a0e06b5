"""A stand-in for the Hugging Face hub: a real HTTP server with what its real library asks for a model's files.

It keeps repositories as commits in memory, knows users by their tokens, hides private repositories, takes safetensors
by the LFS protocol and everything else inside commits, and refuses a model card that the hub would refuse. As the hub
does, it offers large files by Xet, too; whoever takes the offer is refused. It can be told to fail.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

Files = dict[str, bytes]
_MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass
class Repository:
    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    """The newest commit of each; a pull request is one, too."""

    @property
    def head(self) -> str:
        return self.branches["main"]

    def commit(self, files: Files, branch: str = "main") -> str:
        listed = f"{len(self.commits)}{sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items())}"
        oid = hashlib.sha1(listed.encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid


class HubServer:
    def __init__(self, url: str) -> None:
        self.url = url
        self.storage = url.replace("127.0.0.1", "localhost")
        """Where large files lie: to a client another host, which must not see a token."""
        self.tokens: set[str] = set()
        """Of users who may read and write everything."""
        self.repositories: dict[str, Repository] = {}
        self.objects: Files = {}
        """By sha256, as LFS has them."""
        self.seen: list[tuple[str, str, str | None]] = []
        """(method, path, Authorization) of every request."""
        self.failing: dict[str, int] = {}
        """Statuses by what a path begins with."""
        self.cut_at: int | None = None
        """Bytes after which each large file breaks off once."""
        self.cut: set[str] = set()
        self.lock = threading.Lock()


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        with self.hub.lock:
            self.hub.seen.append((self.command, url.path, self.headers.get("Authorization")))
            try:
                for start, status in self.hub.failing.items():
                    if url.path.startswith(start):
                        raise _Refused(status, message="told to fail")
                self._route(url.path, parse_qs(url.query), body)
            except _Refused as refused:
                headers = {"X-Error-Code": refused.code} if refused.code else {}
                self._reply({"error": refused.message}, refused.status, **headers)

    def _route(self, path: str, query: dict[str, list[str]], body: bytes) -> None:
        match path.strip("/").split("/"):
            case ["api", "repos", "create"]:
                self._create(json.loads(body))
            case ["api", "validate-yaml"]:
                self._validate(json.loads(body)["content"])
            case ["api", "models", owner, name]:
                self._info(f"{owner}/{name}", "main")
            case ["api", "models", owner, name, "revision", revision]:
                self._info(f"{owner}/{name}", unquote(revision))
            case ["api", "models", owner, name, "tree", revision]:
                _, files = self._find(f"{owner}/{name}", unquote(revision))
                self._reply([_tree_entry(*each) for each in sorted(files.items())])
            case ["api", "models", owner, name, "branch", branch]:
                self._branch(f"{owner}/{name}", unquote(branch))
            case ["api", "models", owner, name, "preupload", revision]:
                self._require_user()
                _, files = self._find(f"{owner}/{name}", unquote(revision))
                paths = [each["path"] for each in json.loads(body)["files"]]
                self._reply({"files": [_upload_mode(path, files.get(path)) for path in paths]})
            case ["api", "models", owner, name, "commit", revision]:
                self._commit(f"{owner}/{name}", unquote(revision), body, create_pr=query.get("create_pr") == ["1"])
            case [owner, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                self._require_user()
                self._batch(json.loads(body)["objects"])
            case ["lfs", oid]:
                self._object(oid, body)
            case [owner, name, "resolve", revision, *parts]:
                self._file(f"{owner}/{name}", unquote(revision), unquote("/".join(parts)))
            case _:
                raise _Refused(404, message=f"the stand-in has no {self.command} {path}")

    def _is_user(self) -> bool:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") in self.hub.tokens

    def _require_user(self) -> None:
        if not self._is_user():
            raise _Refused(401, message="Invalid username or password.")

    def _find(self, name: str, revision: str) -> tuple[str, Files]:
        """(commit, files)."""
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._is_user()):
            raise _Refused(401, "RepoNotFound", "Invalid username or password.")
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]

    def _create(self, wanted: dict[str, Any]) -> None:
        self._require_user()
        name = f"{wanted.get('organization') or 'anna'}/{wanted['name']}"
        if name in self.hub.repositories:
            known = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            self._reply(known, 409)
            return
        repository = Repository(private=wanted.get("visibility") == "private" or bool(wanted.get("private")))
        repository.commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        self.hub.repositories[name] = repository
        self._reply({"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def _validate(self, card: str) -> None:
        metadata = yaml.safe_load(card.split("---")[1])
        wrong = [
            each for each in (metadata.get("base_model"),) if not isinstance(each, str) or not _MODEL_ID.fullmatch(each)
        ]
        errors = [{"message": f'"base_model" with value "{each}" is not valid. Use a model id'} for each in wrong]
        self._reply({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _info(self, name: str, revision: str) -> None:
        commit, files = self._find(name, revision)
        siblings = [
            {"rfilename": path, "size": len(data), "blobId": _git_oid(data)} for path, data in sorted(files.items())
        ]
        private = self.hub.repositories[name].private
        self._reply({"id": name, "sha": commit, "private": private, "siblings": siblings, "tags": []})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        found = []
        for each in objects:
            upload = {"upload": {"href": f"{self.hub.storage}/lfs/{each['oid']}?signature=1"}}
            known = each["oid"] in self.hub.objects
            found.append({"oid": each["oid"], "size": each["size"], **({} if known else {"actions": upload})})
        self._reply({"transfer": "basic", "objects": found})

    def _object(self, oid: str, body: bytes) -> None:
        if self.command == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                raise _Refused(422, message="other bytes than were announced")
            self.hub.objects[oid] = body
            self._reply({})
        elif oid in self.hub.objects:
            self._give(oid, self.hub.objects[oid])
        else:
            raise _Refused(404)

    def _give(self, oid: str, data: bytes) -> None:
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        whole, data = len(data), data[begin:]
        more = {"ETag": f'"{oid}"', "Content-Range": f"bytes {begin}-{whole - 1}/{whole}"}
        if self.hub.cut_at is None or oid in self.hub.cut:
            self._send(data, 206 if begin else 200, **more)
            return
        self.hub.cut.add(oid)
        self._send(data[: self.hub.cut_at], **more, **{"Content-Length": str(whole)})
        self.close_connection = True

    def _branch(self, name: str, branch: str) -> None:
        self._require_user()
        repository = self.hub.repositories[name]
        if branch in repository.branches:
            raise _Refused(409, message=f"Reference already exists: {branch}")
        repository.branches[branch] = repository.head
        self._reply({})

    def _commit(self, name: str, revision: str, body: bytes, *, create_pr: bool) -> None:
        self._require_user()
        _, before = self._find(name, revision)
        files = dict(before)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        repository = self.hub.repositories[name]
        pull = f"refs/pr/{sum(branch.startswith('refs/pr/') for branch in repository.branches) + 1}"
        oid = repository.commit(files, pull if create_pr else revision)
        reply = {"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"}
        if create_pr:
            reply["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/{pull.rpartition('/')[2]}"
        self._reply(reply)

    def _file(self, name: str, revision: str, path: str) -> None:
        commit, files = self._find(name, revision)
        if path not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        data, sha256 = files[path], hashlib.sha256(files[path]).hexdigest()
        if _upload_mode(path)["uploadMode"] == "regular":
            self._send(data, ETag=f'"{_git_oid(data)}"', X_Repo_Commit=commit)
            return
        self.hub.objects[sha256] = data
        self._send(
            b"",
            302,
            Location=f"{self.hub.storage}/lfs/{sha256}?signature=1",
            X_Repo_Commit=commit,
            X_Linked_ETag=f'"{sha256}"',
            X_Linked_Size=str(len(data)),
            X_Xet_Hash=sha256,
            Link=f'<{self.hub.url}/api/models/{name}/xet-read-token/{commit}>; rel="xet-auth"',
        )

    def _reply(self, body: Any, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(body).encode(), status, **{"Content-Type": "application/json", **headers})

    def _send(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _upload_mode(path: str, known: bytes | None = None) -> dict[str, Any]:
    """How a file is to be sent, and the name of what is there."""
    mode, oid = "regular", None
    if path.endswith(".safetensors"):
        mode = "lfs"
        oid = None if known is None else hashlib.sha256(known).hexdigest()
    elif known is not None:
        oid = _git_oid(known)
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def _tree_entry(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data)}
    if _upload_mode(path)["uploadMode"] == "lfs":
        sha256 = hashlib.sha256(data).hexdigest()
        entry |= {"lfs": {"oid": sha256, "size": len(data), "pointerSize": 134}, "xetHash": sha256}
    return entry


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def run_hub() -> Iterator[HubServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {}))
    hub = HubServer(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass.hub = hub  # type: ignore[attr-defined]  # made for this server
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="hub")
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
