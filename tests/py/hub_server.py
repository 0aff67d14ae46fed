"""A hub of one's own: the parts of the Hugging Face hub's HTTP protocol that pull and push use, with the Python standard library, for tests.

Hub() starts two servers on this machine: the hub, and a store ("CDN") on another port to which large files are redirected and uploaded. It
keeps repositories as {path: bytes} by commit, answers as the hub does (huggingface_hub is a second client of it in the tests), writes down
what it was asked, and misbehaves on request: see Fault."""

import base64
import hashlib
import json
import re
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGE = (".safetensors", ".gguf", ".bin")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Fault:
    """What goes wrong with requests whose path contains `where`, the first `times` of them, once `after` have gone well."""

    def __init__(self, where, kind, times=1, value=None, headers=None, after=0, method=None):
        self.where, self.kind, self.times, self.value, self.headers, self.after, self.method = where, kind, times, value, headers or {}, after, method
        self.hits = 0


class Repo:
    def __init__(self, gated=False, private=False):
        self.commits, self.refs, self.gated, self.private = {}, {}, gated, private

    def commit(self, files, ref="main"):
        """Makes `ref` point to a new commit with these files ({path: bytes}); returns its name."""
        name = hashlib.sha1(repr(sorted((p, sha256(d)) for p, d in files.items())).encode() + str(len(self.commits)).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[ref] = name
        return name

    def files(self, revision):
        commit = self.refs.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else (None, None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    @property
    def hub(self):
        return self.server.hub

    def do_GET(self):
        self.begin()

    do_HEAD = do_POST = do_PUT = do_GET

    def begin(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        entry = {"server": self.server.role, "method": self.command, "path": urllib.parse.unquote(self.path), "headers": {k.lower(): v for k, v in self.headers.items()},
                 "bytes": len(self.body)}
        with self.hub.lock:
            self.hub.log.append(entry)
            self.fault = self.hub.pick_fault(entry)
        try:
            if self.fault and self.fault.kind == "status":
                return self.answer(self.fault.value, b'{"error":"as asked"}', self.fault.headers)
            if self.fault and self.fault.kind == "drop":
                return self.drop()
            if self.fault and self.fault.kind == "redirect":
                return self.answer(302, b"", {"Location": self.fault.value})
            (self.store if self.server.role == "cdn" else self.serve)()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def drop(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def answer(self, status, body=b"", headers=None):
        if isinstance(body, (dict, list)):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if not headers or "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message=""):
        self.answer(status, {"error": message or code}, {"X-Error-Code": code, "X-Error-Message": message or code})

    # --- the hub -----------------------------------------------------------------------------------------------------------------

    def serve(self):
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        path = url.path
        if path == "/api/repos/create":
            return self.create(json.loads(self.body))
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.batch(match[1], json.loads(self.body))
        if path.startswith("/lfs/complete/"):
            return self.complete(path.rsplit("/", 1)[1], json.loads(self.body))
        if path.startswith("/lfs/verify"):
            wanted = json.loads(self.body)
            return self.answer(200 if len(self.hub.blobs.get(wanted["oid"], b"")) == wanted["size"] else 404, {})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|refs|preupload|commit)(?:/(.+))?)?", path):
            name, kind, rest = match[1], match[2], urllib.parse.unquote(match[3] or "")
            repo = self.repository(name)
            return repo and self.api(repo, name, kind, rest, query)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo = self.repository(match[1])
            return repo and self.resolve(repo, urllib.parse.unquote(match[2]), urllib.parse.unquote(match[3]))
        self.answer(404, b"not here")

    def repository(self, name):
        if self.hub.moved.get(name):
            return self.answer(307, b"", {"Location": self.path.replace(name, self.hub.moved[name])})
        repo = self.hub.repos.get(name)
        known = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if repo is None or (repo.private and not known):
            self.refuse(404 if known else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def api(self, repo, name, kind, rest, query):
        if kind in ("preupload", "commit") and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.refuse(403, "Forbidden", "You are not allowed to write")
        if kind == "refs":
            branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in repo.refs.items()]
            return self.answer(200, {"branches": branches, "converts": [], "tags": []})
        commit, files = repo.files(rest or "main")
        if files is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest}")
        if kind == "tree":
            return self.tree(repo, name, commit, files, int(query.get("cursor", ["0"])[0]))
        if kind == "preupload":
            wanted = json.loads(self.body)["files"]
            modes = [{"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular", "shouldIgnore": False, "oid": None} for f in wanted]
            return self.answer(200, {"files": modes})
        if kind == "commit":
            return self.commit(repo, rest, commit, files)
        siblings = [{"rfilename": path} for path in files]
        self.answer(200, {"id": name, "modelId": name, "sha": commit, "private": repo.private, "gated": "manual" if repo.gated else False, "siblings": siblings, "tags": []})

    def tree(self, repo, name, commit, files, begin):
        entries = self.hub.extra_entries.get(name, []) + [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "folder"}]
        for path, data in sorted(files.items()):
            entry = {"type": "file", "oid": git_sha1(data), "size": len(data), "path": path}
            if path.endswith(LARGE):
                listed = self.hub.listed_hash.get(path, sha256(data))
                entry |= {"oid": git_sha1(b"pointer" + data), "lfs": {"oid": listed, "size": len(data), "pointerSize": 134}}
            entries.append(entry)
        end = begin + self.hub.page
        headers = {"Link": f'<{self.hub.url}/api/models/{name}/tree/{commit}?recursive=true&cursor={end}>; rel="next"'} if end < len(entries) else {}
        self.answer(200, entries[begin:end], headers)

    def resolve(self, repo, revision, path):
        if repo.gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.refuse(401 if "Authorization" not in self.headers else 403, "GatedRepo", "Access to model is restricted")
        commit, files = repo.files(revision)
        if files is None:
            return self.refuse(404, "RevisionNotFound")
        if path not in files:
            return self.refuse(404, "EntryNotFound")
        data = files[path]
        common = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if path.endswith(LARGE):
            self.hub.blobs[sha256(data)] = data
            return self.answer(302, b"", common | {"Location": f"{self.hub.cdn_url}/{sha256(data)}/{urllib.parse.quote(path)}?signature=x", "X-Linked-Etag": f'"{sha256(data)}"',
                                                   "X-Linked-Size": str(len(data))})
        self.content(data, common | {"ETag": f'"{git_sha1(data)}"'})

    # --- content, ranges, and what goes wrong while it is sent -------------------------------------------------------------------

    def content(self, data, headers):
        begin = 0
        fault = self.fault
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not (fault and fault.kind == "no-range"):
            begin = int(asked[1])
            if begin >= len(data) and data:
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            end = min(int(asked[2] or len(data) - 1), len(data) - 1)
            headers = headers | {"Content-Range": f"bytes {begin}-{end}/{len(data)}"}
            part = data[begin:end + 1]
        else:
            part, asked = data, None
        if fault and fault.kind == "wrong":
            part = bytes(b ^ 255 for b in part)
        if fault and fault.kind == "long":
            part += bytes(fault.value)
        self.send_response(206 if asked else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.kind == "cut":
            part = part[:fault.value]
        if fault and fault.kind == "slow":
            for at in range(0, len(part), fault.value):
                self.wfile.write(part[at:at + fault.value])
                self.wfile.flush()
                time.sleep(0.02)
            return
        if fault and fault.kind == "stall":
            self.wfile.write(part[:fault.value])
            self.wfile.flush()
            self.hub.release.wait(30)
            return self.drop()
        self.wfile.write(part)
        if fault and fault.kind == "cut":
            self.wfile.flush()
            self.drop()

    # --- the store ---------------------------------------------------------------------------------------------------------------

    def store(self):
        parts = urllib.parse.urlsplit(self.path).path.strip("/").split("/")
        if self.command == "PUT":
            _, oid, number = (parts + ["0"])[:3]
            self.hub.parts.setdefault(oid, {})[int(number)] = self.body
            if number == "0":
                self.hub.blobs[oid] = self.body
            return self.answer(200, b"", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})
        data = self.hub.blobs.get(parts[0])
        return self.answer(404) if data is None else self.content(data, {"ETag": '"of-the-store"'})

    # --- writing -----------------------------------------------------------------------------------------------------------------

    def create(self, wanted):
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.refuse(401, "Unauthorized")
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] != self.hub.user:
            return self.refuse(403, "Forbidden", f"You don't have the rights to create a model under the namespace \"{wanted['organization']}\"")
        if name in self.hub.repos:
            return self.refuse(409, "Conflict")
        self.hub.repos[name] = Repo(private=wanted.get("private", False))
        self.hub.repos[name].commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self.answer(200, {"url": f"{self.hub.url}/{name}"})

    def batch(self, name, wanted):
        assert wanted["operation"] == "upload" and self.headers["Content-Type"].startswith("application/vnd.git-lfs+json")
        objects = []
        for o in wanted["objects"]:
            entry = dict(o)
            if o["oid"] not in self.hub.blobs:
                verify = {"href": f"{self.hub.url}/lfs/verify", "header": {}}
                if o["size"] > self.hub.chunk:
                    count = -(-o["size"] // self.hub.chunk)
                    header = {"chunk_size": str(self.hub.chunk)} | {str(i): f"{self.hub.cdn_url}/upload/{o['oid']}/{i}?signature=x" for i in range(1, count + 1)}
                    entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/complete/{o['oid']}", "header": header}, "verify": verify}
                else:
                    entry["actions"] = {"upload": {"href": f"{self.hub.cdn_url}/upload/{o['oid']}", "header": {"X-Store": "yes"}}, "verify": verify}
            objects.append(entry)
        self.answer(200, {"transfer": "multipart", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})

    def complete(self, oid, wanted):
        parts = self.hub.parts.get(oid, {})
        numbers = [p["partNumber"] for p in wanted["parts"]]
        good = numbers == sorted(parts) and all(p["etag"] == f'"{hashlib.md5(parts[p["partNumber"]]).hexdigest()}"' for p in wanted["parts"])
        data = b"".join(parts[n] for n in sorted(parts))
        if not good or sha256(data) != oid:
            return self.answer(400, {"error": "parts do not fit"})
        self.hub.blobs[oid] = data
        self.answer(200, {})

    def commit(self, repo, revision, head, files):
        lines = [json.loads(line) for line in self.body.decode().splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, head):
            return self.refuse(412, "PreconditionFailed", "A commit has happened since. Please refresh and try again.")
        after = dict(files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                after[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                data = self.hub.blobs.get(value["oid"], b"")
                if len(data) != value["size"]:
                    return self.refuse(400, "BadRequest", "the object is not in the store")
                after[value["path"]] = data
        name = repo.commit(after, revision)
        self.hub.messages.append(header["summary"])
        if self.fault and self.fault.kind == "lost":  # the commit is made, and nobody hears of it
            return self.drop()
        self.answer(200, {"success": True, "commitUrl": f"{self.hub.url}/commit/{name}", "commitOid": name, "pullRequestUrl": None, "hookOutput": ""})


class Hub:
    def __init__(self, user="me", token="hf_testtoken"):
        self.repos, self.moved, self.blobs, self.parts, self.log, self.faults, self.messages = {}, {}, {}, {}, [], [], []
        self.extra_entries, self.listed_hash = {}, {}
        self.user, self.token, self.page, self.chunk = user, token, 1000, 1 << 40
        self.lock, self.release = threading.Lock(), threading.Event()
        self.servers = []
        for role in ("hub", "cdn"):
            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads, server.hub, server.role = True, self, role
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            self.servers.append(server)
        self.url, self.cdn_url = (f"http://127.0.0.1:{s.server_port}" for s in self.servers)

    def close(self):
        self.release.set()
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def add(self, name, files, **options):
        self.repos[name] = Repo(**options)
        return self.repos[name].commit(files)

    def fault(self, *args, **options):
        self.faults.append(Fault(*args, **options))
        return self.faults[-1]

    def pick_fault(self, entry):
        for fault in self.faults:
            if fault.where in entry["path"].split("?")[0] + "@" + entry["server"] and fault.method in (None, entry["method"]):
                fault.hits += 1
                if fault.after < fault.hits <= fault.after + fault.times:
                    return fault
        return None

    def asked(self, text, server=None, method=None):
        """The requests whose path contains the text."""
        return [e for e in self.log if text in e["path"] and server in (None, e["server"]) and method in (None, e["method"])]
