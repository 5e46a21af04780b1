"""Models by hub id, from a server that speaks the hub's protocol on this machine."""

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import jax
import pytest

from sgpo_jax import models
from sgpo_jax.models import pretrained

pytest.importorskip("huggingface_hub")

SHA = hashlib.sha1(b"a commit").hexdigest()
CONFIG = models.DecoderConfig(
    vocab_size=9,
    num_layers=1,
    embed_dim=8,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    mlp_dim=8,
)
# A process of its own, since the client reads its settings once.
CHILD = """
import json, sys
from sgpo_jax.models import pretrained
for source in sys.argv[1:]:
    try:
        found = pretrained.open_source(source)
        print(json.dumps(sorted(path.name for path in found.path.iterdir())))
        assert found.config.embed_dim == 8
        pretrained.load_params(found.tensors, found.config)
    except ValueError as error:
        print(json.dumps(str(error)))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """One model, `tea/pot`."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        path, _, _ = self.path.partition("?")
        api, resolve = "/api/models/tea/pot", "/tea/pot/resolve/"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{SHA}"):
            names = [{"rfilename": name} for name in self.files]
            return self.send({"id": "tea/pot", "sha": SHA, "siblings": names}, body)
        if path.startswith(f"{api}/tree/"):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": SHA}
                for name, data in self.files.items()
            ]
            return self.send(entries, body)
        name = path.removeprefix(resolve).partition("/")[2]
        if path.startswith(resolve) and name in self.files:
            self.asked.append(name)
            return self.send(self.files[name], body)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, content, body):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("X-Repo-Commit", SHA)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serve(files):
    asked: list[str] = []
    handler = type("OneHub", (Hub,), {"files": files, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def open_in_a_child(*sources, **env):
    """Return what comes of each source: names of files, or a message."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *sources],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_DISABLE_XET": "1", **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_hub_ids(tmp_path):
    params = models.init(CONFIG, key=jax.random.key(0))
    pretrained.save(tmp_path / "made", params, CONFIG)
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    wanted = sorted(files)
    files |= {"pytorch_model.bin": b"\x80", "modeling.py": b"1/0", "README.md": b""}
    home = {"HF_HOME": str(tmp_path / "home")}
    with serve(files) as (address, asked):
        found = open_in_a_child(
            "hf:tea/pot", "hf:tea/cup", HF_ENDPOINT=address, HF_HUB_OFFLINE="0", **home
        )
    assert found[0] == wanted
    assert set(asked) == set(wanted)  # no pickle, no code
    assert found[1].startswith("cannot fetch tea/cup from the hub (RepositoryNotFound")
    assert found[1].endswith("give a folder with its files instead")
    # What was fetched is there without the hub; what was not says so.
    offline = {"HF_ENDPOINT": address, **home}
    found = open_in_a_child("hf:tea/pot", "hf:tea/cup", HF_HUB_OFFLINE="1", **offline)
    assert found[0] == wanted
    assert found[1].startswith("cannot fetch tea/cup from the hub (")
    assert found[1].endswith("give a folder with its files instead")
