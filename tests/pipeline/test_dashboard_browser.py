"""The dashboard in a real browser: it shows a study to its user, and nothing to other pages that the browser visits."""

import html
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta

from nas.study.storage import open_storage
from results.run_folder import RunFolder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's chromium)")]

# Every way in which a page can ask; what it got, or why not, is written where the browser prints it.
ATTACK = """
<!doctype html><body><script>
const own = "OWN", found = {};
const ways = {
  "reads": () => fetch(own + "/api/studies").then(r => r.text()),
  "reads without leave": () => fetch(own + "/api/studies", {mode: "no-cors"}).then(r => r.type + r.status),
  "sends a form": () => fetch(own + "/api/studies", {method: "POST", mode: "no-cors", body: "study_name=x"}),
  "sends JSON": () => fetch(own + "/api/studies", {method: "POST", headers: {"Content-Type": "application/json"},
    body: '{"study_name": "x", "directions": ["minimize"]}'}).then(r => r.text()),
  "deletes": () => fetch(own + "/api/studies/1", {method: "DELETE"}).then(r => r.text()),
  "deletes study 0": () => fetch(own + "/api/studies/0", {method: "DELETE"}).then(r => r.text()),
  "loads a picture": () => new Promise((yes, no) => {
    const picture = new Image(); picture.onload = () => yes("loaded"); picture.onerror = () => no("no picture");
    picture.src = own + "PICTURE"; }),
  "runs a script": () => new Promise((yes, no) => {
    const script = document.createElement("script"); script.onload = () => yes("loaded");
    script.onerror = () => no("no script"); script.src = own + "/static/bundle.js"; document.body.append(script); }),
};
(async () => {
  for (const [name, way] of Object.entries(ways)) {
    try { found[name] = String(await way()); } catch (error) { found[name] = "refused: " + error; }
  }
  const text = document.createElement("pre"); text.textContent = JSON.stringify(found); document.body.append(text);
})();
</script></body>
"""


def browse(address: str, profile: Path) -> str:
    """The page at an address, as the browser has it after its scripts ran; evil.example is this machine."""
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    command = [str(CHROMIUM), *quiet.split(), "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
    command += [
        "--host-resolver-rules=MAP evil.example 127.0.0.1",
        "--virtual-time-budget=10000",
        "--dump-dom",
        address,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture
def dashboard(run: Path, cache: Path) -> Iterator[str]:
    """The address of a dashboard that may write, as in http://127.0.0.1:8080."""
    command = [sys.executable, "-m", "nas", "dashboard", "--run", str(run), "--port", "0", "--write"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "NAS_CACHE": str(cache)})
    assert process.stdout is not None
    found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
    assert found is not None
    yield found[0]
    process.terminate()
    assert process.wait(timeout=60) == 0
    process.stdout.close()


@pytest.fixture
def attack(dashboard: str, run: Path, tmp_path: Path) -> Iterator[int]:
    """The port of another server on this machine, whose page attacks the dashboard."""
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text(ATTACK.replace("OWN", dashboard).replace("PICTURE", _picture(run)))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(pages))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def _studies(run: Path) -> list[str]:
    return [study.study_name for study in optuna.get_all_study_summaries(open_storage(RunFolder(run), None))]


def _picture(run: Path) -> str:
    """The path of a picture of a trial in the dashboard."""
    trial = _study(run).trials[0]
    meta = get_all_artifact_meta(trial, storage=_study(run)._storage)[0]
    return f"/artifacts/{_study(run)._study_id}/{trial._trial_id}/{meta.artifact_id}"


def _study(run: Path) -> optuna.Study:
    return optuna.load_study(study_name="tiny", storage=open_storage(RunFolder(run), None))


def test_its_user_sees_the_study_and_its_pictures(dashboard: str, run: Path, tmp_path: Path) -> None:
    assert "tiny" in browse(f"{dashboard}/dashboard", tmp_path / "profile")
    assert "<img" in browse(f"{dashboard}{_picture(run)}", tmp_path / "profile")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "evil.example"])
def test_another_page_reads_and_changes_nothing(
    dashboard: str, attack: int, run: Path, tmp_path: Path, name: str
) -> None:
    before = _studies(run)
    page = browse(f"http://{name}:{attack}/index.html", tmp_path / "profile")
    found = re.search(r"<pre>(.*)</pre>", page, re.DOTALL)
    assert found is not None, page
    answers = json.loads(html.unescape(found[1]))
    assert len(answers) == 8
    for way, answer in answers.items():
        unread = answer.startswith("refused") or answer in ("opaque0", "[object Response]")  # sent, and not to be read
        assert unread, (way, answer)
    assert answers["loads a picture"].startswith("refused") and answers["runs a script"].startswith("refused")
    assert _studies(run) == before


def test_a_name_that_another_page_points_here_is_no_name_of_the_dashboard(
    dashboard: str, run: Path, tmp_path: Path
) -> None:
    """DNS rebinding: the browser takes the dashboard for a part of the page's own site."""
    port = dashboard.rpartition(":")[2]
    for path in ("/dashboard", "/api/studies"):
        page = browse(f"http://evil.example:{port}{path}", tmp_path / "profile")
        assert "is not a name of this dashboard" in page and "tiny" not in page
