"""A stand-in for the Hugging Face hub: a real HTTP server with what its real library asks for a model's files.

It keeps repositories as commits in memory, knows users by their tokens, hides private repositories, takes safetensors
by the LFS protocol and everything else inside commits, and refuses a model card that the hub would refuse.
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
    """Files by commit, the newest last."""

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    def commit(self, files: Files) -> str:
        listed = f"{len(self.commits)}{sorted((name, hashlib.sha1(data).hexdigest()) for name, data in files.items())}"
        oid = hashlib.sha1(listed.encode()).hexdigest()
        self.commits[oid] = files
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
            case ["api", "models", owner, name, "preupload", _]:
                self._require_user()
                self._reply({"files": [_upload_mode(each["path"]) for each in json.loads(body)["files"]]})
            case ["api", "models", owner, name, "commit", _]:
                self._commit(f"{owner}/{name}", body)
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
        commit = repository.head if revision == "main" else revision
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
            {"rfilename": path, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            for path, data in sorted(files.items())
        ]
        private = self.hub.repositories[name].private
        self._reply({"id": name, "sha": commit, "private": private, "siblings": siblings, "tags": []})

    def _batch(self, objects: list[dict[str, Any]]) -> None:
        found = []
        for each in objects:
            upload = {"upload": {"href": f"{self.hub.storage}/lfs/{each['oid']}"}}
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
            self._send(self.hub.objects[oid], ETag=f'"{oid}"')
        else:
            raise _Refused(404)

    def _commit(self, name: str, body: bytes) -> None:
        self._require_user()
        _, before = self._find(name, "main")
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
        oid = self.hub.repositories[name].commit(files)
        self._reply({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})

    def _file(self, name: str, revision: str, path: str) -> None:
        commit, files = self._find(name, revision)
        if path not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        data, sha256 = files[path], hashlib.sha256(files[path]).hexdigest()
        if _upload_mode(path)["uploadMode"] == "regular":
            self._send(data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=commit)
            return
        self.hub.objects[sha256] = data
        self._send(
            b"",
            302,
            Location=f"{self.hub.storage}/lfs/{sha256}",
            X_Repo_Commit=commit,
            X_Linked_ETag=f'"{sha256}"',
            X_Linked_Size=str(len(data)),
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


def _upload_mode(path: str) -> dict[str, Any]:
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None}


def _tree_entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


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
