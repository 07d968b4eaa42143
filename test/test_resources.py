"""Model directories by their names: local folders, and repositories on the Hugging Face hub.

The hub is a cache on disk, a closed port, or a server of this process; never the real one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from deer_ros.cli.main import main
from deer_ros.resources import bundled_model, find_model

COMMIT, OLDER = "a" * 40, "b" * 40
CLOSED_PORT = "http://127.0.0.1:9"
DECOYS = ("pytorch_model.bin", "modeling_deer.py", "README.md", "old/model.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def cached(home: Path, model: Path, commit: str = COMMIT, revision: str = "main") -> Path:
    """The hub's cache as a download of `someone/tiny` leaves it; the snapshot's folder."""
    repository = home / "hub" / "models--someone--tiny"
    snapshot = repository / "snapshots" / commit
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / revision).write_text(commit)
    (repository / "blobs").mkdir(exist_ok=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(model.iterdir())):
        blob = repository / "blobs" / f"{commit[:8]}{number}"
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


def run(home: Path, program: str, **environment: str) -> subprocess.CompletedProcess:
    """In a process of its own: the library reads its environment when it is imported."""
    settings = {"HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_ENDPOINT": CLOSED_PORT}
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300,
        env=os.environ | settings | environment,
    )


def found(home: Path, *names: str, **environment: str) -> list[str]:
    """The folder that each name leads to, or the sentence that says why there is none."""
    done = run(home, (
        "from deer_ros.resources import find_model\n"
        f"for name in {names!r}:\n"
        "    try: print(find_model(name))\n"
        "    except OSError as error: print(error)"
    ), **environment)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert len(answers) == len(names)
    return answers


def test_no_name_is_the_bundled_model_and_a_folder_is_itself(model, tmp_path, monkeypatch):
    assert find_model() == find_model(None) == bundled_model()
    assert find_model(model) == find_model(str(model)) == model
    monkeypatch.setenv("HOME", str(model.parent))
    assert find_model("~/tiny") == model


def test_a_folder_goes_before_a_repository_of_that_name(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone").mkdir()
    shutil.copytree(model, tmp_path / "someone" / "tiny")
    assert find_model("someone/tiny") == Path("someone/tiny")


@pytest.mark.parametrize("name", [
    "/no/such/place", "nowhere", "./some/where", "../tiny", "a/b/c", "~/nowhere", "", "a b/c",
    "someone/tiny@", "@main", "https://huggingface.co/someone/tiny", Path("someone/tiny"),
])
def test_what_is_neither_a_folder_nor_a_repositorys_name_is_refused_at_once(name):
    with pytest.raises(FileNotFoundError, match="there is no model directory .*owner/name"):
        find_model(name if name != "" else "\x01")


def test_a_file_is_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "tiny").write_text("")
    with pytest.raises(FileNotFoundError, match="there is no model directory someone/tiny; name"):
        find_model("someone/tiny")


@pytest.mark.parametrize("environment", [
    {"HF_HUB_OFFLINE": "1"},
    pytest.param({"HF_ENDPOINT": CLOSED_PORT}, marks=pytest.mark.long),  # it tries for long
])
def test_without_a_network_the_cache_is_enough(model, tmp_path, environment):
    newest, older = cached(tmp_path, model), cached(tmp_path, model, OLDER, "v1")
    names = ("someone/tiny", "someone/tiny@v1", f"someone/tiny@{OLDER}", "someone/tiny@v2",
             "someone/other")
    *folders, no_revision, no_repository = found(tmp_path, *names, **environment)
    assert folders == [str(newest), str(older), str(older)]
    for sentence in (no_revision, no_repository):
        assert "not wholly in the cache, and the hub cannot be reached" in sentence
        assert sentence.startswith("there is no model directory someone/")


def test_a_policy_and_a_command_take_a_repositorys_name(model, tmp_path):
    cached(tmp_path, model)
    done = run(tmp_path, (
        "from deer_ros import DeerPolicy\n"
        "from deer_ros.cli.main import main\n"
        "print(DeerPolicy.from_pretrained('someone/tiny', max_layer=4).max_layer)\n"
        "assert main(['info', 'someone/tiny', '--json']) == 0\n"
        "assert main(['info', 'someone/none']) == 2\n"
    ), HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    layers, facts = done.stdout.split("\n", 1)
    assert layers == "4" and json.loads(facts)["model"].endswith(COMMIT)
    assert done.stderr.count("\n") == 1
    assert "there is no model directory someone/none" in done.stderr


def test_without_the_hubs_library_its_name_is_in_the_sentence(tmp_path):
    done = run(tmp_path, (
        "import sys\n"
        "sys.modules['huggingface_hub'] = None  # an import of it raises\n"
        "from deer_ros.cli.main import main\n"
        "sys.exit(main(['info', 'someone/tiny']))\n"
    ))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "the Python module huggingface_hub, which is not installed" in done.stderr


class Hub(BaseHTTPRequestHandler):
    """What the library asks of the hub, for one repository."""

    folder: Path
    asked: list[str]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_arguments) -> None:
        """Say nothing."""

    def _answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0]
        files = {str(f.relative_to(self.folder)): f
                 for f in sorted(self.folder.rglob("*")) if f.is_file()}
        base = "/api/models/someone/tiny"
        if path in (base, f"{base}/revision/main"):
            self._send(200, json.dumps({"id": "someone/tiny", "sha": COMMIT, "siblings": []}))
        elif path == f"{base}/tree/{COMMIT}":
            self._send(200, json.dumps([
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": f"{n:040x}"}
                for n, (name, file) in enumerate(files.items())]))
        elif (name := path.removeprefix(f"/someone/tiny/resolve/{COMMIT}/")) in files:
            self.asked.append(name)
            self._send(200, files[name].read_bytes(), with_body, {
                "ETag": f'"{list(files).index(name):040x}"', "X-Repo-Commit": COMMIT})
        else:
            is_revision = path.startswith(base)
            code = "RevisionNotFound" if is_revision else "RepoNotFound"
            self._send(404, "{}", with_body, {"X-Error-Code": code})

    def _send(self, status: int, body: str | bytes, with_body: bool = True,
              headers: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)


@pytest.fixture
def hub(model, tmp_path):
    """(address, names of the files that were asked for) of a hub with one model and decoys."""
    folder = tmp_path / "served"
    shutil.copytree(model, folder)
    for name in DECOYS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("no part of a model")
    handler = type("ServedHub", (Hub,), {"folder": folder, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_repository_is_fetched_once_and_only_the_files_of_a_model(hub, model, tmp_path):
    address, asked = hub
    home = tmp_path / "home"
    folder = Path(*found(home, "someone/tiny", HF_ENDPOINT=address))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        file.name: file.read_bytes() for file in model.iterdir()}
    assert not set(asked) & set(DECOYS)
    assert found(home, "someone/tiny") == [str(folder)], "the hub is gone, the cache is there"


def test_what_the_hub_does_not_have_is_said(hub, tmp_path):
    address, _ = hub
    no_repository, no_revision = found(
        tmp_path / "home", "someone/none", "someone/tiny@v9", HF_ENDPOINT=address)
    assert "it does not exist, or is private" in no_repository
    assert "it has no revision 'v9'" in no_revision


def test_the_command_says_it_in_one_line(capsys):
    assert main(["info", "no-such-folder"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "name a directory, or a model on the Hugging Face hub" in said
