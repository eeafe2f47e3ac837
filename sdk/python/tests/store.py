"""A tracking store in a thread, with the rules of docs/reference/journal.md and faults on demand.

It is strict where the real one is (gaps are conflicts, hashes are checked, tokens are needed), and
stricter in one place: an answer lost on its way is never given again, so a sender must ask.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "secret-token"
KINDS = {"open", "points", "params", "tags", "progress", "checkpoint", "artifact", "model", "close"}


class Store:
    def __init__(self):
        self.writers = {}  # (run, writer) -> records, in order
        self.blobs = {}
        self.models = {}
        self.drop_answers = 0  # take the lines, then cut the connection
        self.cut_before = 0  # cut the connection before taking them
        self.fail = 0  # answer 500
        self.delay = threading.Event()  # set: let calls pass
        self.delay.set()
        self.foreign = set()  # runs that this token may read and not change
        self.hidden = set()  # runs that belong to somebody else
        self.posts = 0
        self.changed = threading.Condition()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 64 * 1024

            def log_message(self, *arguments):
                pass

            def answer(self, status, body=b"", length=None):
                if not isinstance(body, bytes):
                    body = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) if length is None else length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def handle_one(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                store.delay.wait(30)
                if self.headers.get("Authorization") != "Bearer " + TOKEN:
                    return self.answer(401, {"code": "unauthenticated", "message": "unknown token"})
                path, _, query = self.path.partition("?")
                blob = re.fullmatch(r"/v1/blobs/([0-9a-f]{64})", path)
                if blob:
                    return self.blob(blob.group(1), body)
                journal = re.fullmatch(r"/v1/tracking/([^/]+)/journal", path)
                if journal and self.command == "POST":
                    return self.journal(journal.group(1), urllib.parse.parse_qs(query)["writer"][0], body)
                model = re.fullmatch(r"/v1/models/([^/]+)", path)
                if model and model.group(1) in store.models:
                    return self.answer(200, {"name": model.group(1), "versions": store.models[model.group(1)]})
                tracked = re.fullmatch(r"/v1/tracking/([^/]+)", path)
                if tracked:
                    series = store.series(tracked.group(1))
                    latest = {key: {"step": points[-1][0]} for key, points in series.items()}
                    return self.answer(200, {"run": tracked.group(1), "metrics": latest})
                self.answer(404, {"code": "not-found", "message": path})

            do_GET = do_HEAD = do_PUT = do_POST = handle_one

            def blob(self, address, body):
                if self.command == "PUT":
                    if hashlib.sha256(body).hexdigest() != address:
                        return self.answer(400, {"code": "invalid", "message": "hash differs"})
                    store.blobs[address] = body
                    return self.answer(200, {})
                found = store.blobs.get(address)
                self.answer(200 if found is not None else 404, found or b"")

            def journal(self, run, writer, body):
                with store.changed:
                    store.posts += 1
                    if store.cut_before > 0:
                        store.cut_before -= 1
                        self.close_connection = True
                        return None
                    if run in store.foreign:
                        return self.answer(403, {"code": "forbidden", "message": f"{run} is ada's"})
                    if run in store.hidden:
                        return self.answer(404, {"code": "not-found", "message": f"{run} does not exist"})
                    if store.fail > 0:
                        store.fail -= 1
                        return self.answer(500, {"code": "internal", "message": "out of luck"})
                    assert len(body) <= 4 * 1024 * 1024 and body.endswith(b"\n")
                    lines = [json.loads(line, parse_constant=_no_constant) for line in body.splitlines()]
                    lines = [
                        {**record, "s": sequence}
                        for record in lines
                        for sequence in range(record["s"], record.get("through", record["s"]) + 1)
                    ]
                    taken = store.writers.setdefault((run, writer), [])
                    if lines[0]["s"] > len(taken) + 1:
                        message = f"first sequence is {lines[0]['s']}, the watermark is {len(taken)}"
                        return self.answer(409, {"code": "conflict", "message": message})
                    results = []
                    for record in lines:
                        if record["s"] <= len(taken):
                            continue
                        assert record["s"] == len(taken) + 1, "a gap"
                        taken.append(record)
                        results += store.take(run, record)
                    answer = {"watermark": len(taken), "results": results}
                    store.changed.notify_all()
                    if store.drop_answers > 0:
                        store.drop_answers -= 1
                        self.close_connection = True
                        return None
                self.answer(200, answer)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def take(self, run, record):
        if record["k"] == "lost":
            return [{"sequence": record["s"], "error": record["why"]}]
        if record["k"] not in KINDS:
            return [{"sequence": record["s"], "error": f"unknown kind {record['k']!r}"}]
        if record["k"] != "model":
            return []
        for entry in record["files"]:
            assert entry["sha256"] in self.blobs, "a model before its bytes"
        versions = self.models.setdefault(record["name"], [])
        version = {"name": record["name"], "version": len(versions) + 1, "run": run, "manifest": record["manifest"]}
        versions.append({**version, "files": record["files"]})
        return [{"sequence": record["s"], "model": record["name"], "version": version["version"]}]

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def until(self, condition, seconds=20):
        with self.changed:
            assert self.changed.wait_for(condition, seconds), "did not happen in time"

    def runs(self):
        return sorted({run for run, _ in self.writers})

    def records(self, run=None, kind=None):
        found = []
        for (of, _), records in list(self.writers.items()):
            if run is None or of == run:
                found += [record for record in records if kind is None or record["k"] == kind]
        return found

    def series(self, run=None, system=False):
        series = {}
        for record in self.records(run, "points"):
            for index, step, _, value in record["points"]:
                key = record["keys"][index]
                if system or not key.startswith("system/"):
                    series.setdefault(key, []).append((step, value))
        return series


def _no_constant(name):
    raise AssertionError(f"{name} is not JSON")
