"""What a Hub on this machine takes in: new repositories, large files, and commits, from who shows a token it knows."""

import base64
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.hub_repository import LARGE, Repository

if TYPE_CHECKING:
    from tests.hub_server import HubServer

Answer = tuple[int, object]


class Accepting:
    """Answers requests that write. `tokens`: name and role of those it knows; a name may write where it is the owner.

    `commits` keeps the header and the operations of each, `made` what repositories were made with.
    """

    def __init__(self, hub: "HubServer") -> None:
        self.tokens: dict[str, tuple[str, str]] = {}
        self.commits: list[list[dict[str, Any]]] = []
        self.made: list[dict[str, Any]] = []
        self._hub = hub
        self._folder = tempfile.TemporaryDirectory()
        self._routes: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
            ("GET", r"/api/whoami-v2", self._whoami),
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", lambda token, body: (200, {})),
            ("POST", r"/api/models/([^/]+/[^/]+)/preupload/main", self._preupload),
            ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            ("PUT", r"/lfs/([0-9a-f]{64})", self._store),
            ("POST", r"/api/models/([^/]+/[^/]+)/commit/main", self._commit),
        )

    def close(self) -> None:
        self._folder.cleanup()

    def answer(self, method: str, path: str, token: str | None, body: bytes) -> Answer | None:
        """Answer a request that is one of these, None for another."""
        for wanted, pattern, route in self._routes:
            found = re.fullmatch(pattern, path)
            if found and method == wanted:
                return route(token, body, *found.groups())
        return None

    def _whoami(self, token: str | None, body: bytes) -> Answer:
        if token not in self.tokens:
            return 401, {"error": "Invalid username or password."}
        name, role = self.tokens[token]
        return 200, {"type": "user", "name": name, "orgs": [], "auth": {"accessToken": {"role": role}}}

    def _may_write(self, token: str | None, repo: str) -> bool:
        return token in self.tokens and repo.partition("/")[0] == self.tokens[token][0]

    def _create(self, token: str | None, body: bytes) -> Answer:
        asked = json.loads(body)
        if token not in self.tokens:
            return 401, {"error": "Invalid username or password."}
        name = f"{asked['organization'] or self.tokens[token][0]}/{asked['name']}"
        if not self._may_write(token, name):
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        url = {"url": f"{self._hub.url}/{name}"}
        if name in self._hub.repositories:
            return 409, {"error": "You already created this model repo", **url}
        self.made.append(asked)
        empty = self._new_folder()
        (empty / ".gitattributes").write_text("*.safetensors filter=lfs\n")
        self._hub.add(name, empty, private=asked.get("visibility") == "private", token=token)
        return 200, url

    def _preupload(self, token: str | None, body: bytes, repo: str) -> Answer:
        if not self._may_write(token, repo) or repo not in self._hub.repositories:
            return 403, {"error": "no"}
        files = [
            {"path": file["path"], "uploadMode": _mode(file["path"]), "shouldIgnore": False}
            for file in json.loads(body)["files"]
        ]
        return 200, {"files": files}

    def _batch(self, token: str | None, body: bytes, repo: str) -> Answer:
        if not self._may_write(token, repo):
            return 403, {"error": "no"}
        objects = [
            one | {"actions": {"upload": {"href": f"{self._hub.cdn}/lfs/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        return 200, {"transfer": "basic", "objects": objects}

    def _store(self, token: str | None, body: bytes, oid: str) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "another file than was announced"}
        (Path(self._folder.name) / oid).write_bytes(body)
        return 200, {}

    def _commit(self, token: str | None, body: bytes, repo: str) -> Answer:
        if not self._may_write(token, repo):
            return 403, {"error": "no"}
        lines = [json.loads(line) for line in body.splitlines()]
        repository: Repository = self._hub.repositories[repo]
        folder = self._new_folder(repository.commits[repository.revisions["main"]])
        for line in lines[1:]:
            path = folder / line["value"]["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if line["key"] == "file":
                path.write_bytes(base64.b64decode(line["value"]["content"]))
            elif line["key"] == "lfsFile":
                shutil.copy(Path(self._folder.name) / line["value"]["oid"], path)
            else:
                path.unlink()
        self.commits.append(lines)
        commit = self._hub.add(repo, folder)
        return 200, {"commitUrl": f"{self._hub.url}/{repo}/commit/{commit}", "commitOid": commit}

    def _new_folder(self, earlier: Path | None = None) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        if earlier:
            shutil.copytree(earlier, folder, dirs_exist_ok=True)
        return folder


def _mode(path: str) -> str:
    return "lfs" if path.endswith(LARGE) else "regular"
