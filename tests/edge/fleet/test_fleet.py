"""The files of ``edge/fleet``, checked and run with the programs that they are for."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from emotion_edge.sinks import open_sinks
from emotion_edge.sinks.metrics import MetricsSettings
from tests.edge.kiosk.kiosk_standin import BLIND, UPDATE, Kiosk, wheel

FLEET = Path(__file__).parents[3] / "edge/fleet"
ANSIBLE = FLEET / "ansible"


def program(name: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    nearby = Path(sys.executable).parent / name
    found = str(nearby) if nearby.exists() else shutil.which(name)
    return found or pytest.skip(f"{name} is not installed")


def run(*words: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run a program; its standard error is part of its output."""
    return subprocess.run(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=1500,  # of a busy machine
        **options,  # type: ignore[call-overload]
    )


# Prometheus and Grafana


@pytest.fixture(scope="module")
def served() -> set[str]:
    """The names of the series of a real ``/metrics``."""
    pytest.importorskip("prometheus_client")
    about = {"site": "foyer", "model": "fast"}
    with open_sinks([MetricsSettings(port=0)], about=about, drift=lambda: {"labels": 0.1}) as sinks:
        end = time.monotonic() + 30
        while not (found := re.search(r"http://\S+", sinks.states()[0].name)):
            assert time.monotonic() < end
            time.sleep(0.01)
        with urllib.request.urlopen(f"{found[0]}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    assert re.search(r'^emotion_edge_info\{.*model="fast".*site="foyer".*\} 1', text, re.MULTILINE)
    names = set(re.findall(r"^(\w+)(?:\{| )", text, re.MULTILINE))
    # Series with labels that have not occurred yet are only announced.
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)", text, re.MULTILINE):
        names |= {f"{name}_{part}" for part in ("bucket", "sum", "count") if kind == "histogram"}
        names.add(name)
    return names | {"up"}


WORDS = {
    *("by", "on", "ignoring", "group_left", "or", "and", "bool", "sum", "count", "rate", "vector"),
    *("time", "changes", "histogram_quantile", "label_values", "max", "min", "topk", "unless"),
}


def metrics_in(expression: str) -> set[str]:
    """The names of the metrics in a PromQL expression."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', "", expression)
    bare = re.sub(r"\b(by|on|ignoring|group_left) ?\([^)]*\)", "", bare)
    return set(re.findall(r"\b[a-z_]{2,}\b", bare)) - WORDS


def test_metrics_in_an_expression() -> None:
    found = metrics_in('sum by (site) (rate(a_total{b="c d"}[5m])) * on (instance) b_info')
    assert found == {"a_total", "b_info"}


def test_the_dashboard_shows_metrics_that_exist(served: set[str]) -> None:
    dashboard = json.loads((FLEET / "grafana/fleet.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) > 10
    for expression in expressions:
        unknown = metrics_in(expression) - served
        assert metrics_in(expression) and not unknown, expression
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_alerts_watch_metrics_that_exist(served: set[str]) -> None:
    text = (FLEET / "prometheus/alerts.yml").read_text()
    expressions = re.findall(r"expr: (?:>-\n)?((?:.(?!for:|labels:))+?)(?=\n +\w+:)", text, re.S)
    assert len(expressions) == text.count("alert: ")
    for expression in expressions:
        unknown = metrics_in(expression) - served
        assert metrics_in(expression) and not unknown, expression


def test_the_alerts_fire_when_they_should() -> None:
    promtool = program("promtool")
    folder = FLEET / "prometheus"
    for words in (
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("check", "config", "--syntax-only", "prometheus.yml"),
    ):
        done = run(promtool, *words, cwd=folder)
        assert done.returncode == 0, done.stdout
    alerts = set(re.findall(r"alert: (\w+)", (folder / "alerts.yml").read_text()))
    tested = (folder / "alerts_test.yml").read_text()
    assert not [name for name in alerts if f"alertname: {name}\n" not in tested]


def test_the_dashboard_is_valid_promql(tmp_path: Path) -> None:
    promtool = program("promtool")
    dashboard = json.loads((FLEET / "grafana/fleet.json").read_text())
    rules = [
        {"record": f"panel:{panel['id']}:{number}", "expr": target["expr"].replace("$site", ".*")}
        for panel in dashboard["panels"]
        for number, target in enumerate(panel["targets"])
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = run(promtool, "check", "rules", path)
    assert done.returncode == 0, done.stdout


# The reverse proxy


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """An authority, a kiosk's certificate, Prometheus', and one of another authority."""
    openssl = program("openssl")

    def sign(name: str, authority: str, *extensions: str) -> None:
        key, request, crt = (tmp_path / f"{name}.{end}" for end in ("key", "csr", "crt"))
        words = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        words += ["-keyout", str(key), "-subj", f"/CN={name}"]
        if not authority:
            done = run(openssl, *words, "-x509", "-days", "2", "-out", crt)
        else:
            run(openssl, *words, "-out", request)
            (tmp_path / "extensions").write_text("\n".join(extensions))
            ca = ["-CA", tmp_path / f"{authority}.crt", "-CAkey", tmp_path / f"{authority}.key"]
            more = ["-CAcreateserial", "-days", "2", "-extfile", tmp_path / "extensions"]
            done = run(openssl, "x509", "-req", "-in", request, *ca, *more, "-out", crt)
        assert done.returncode == 0, done.stdout

    sign("ca", "")
    sign("other", "")
    sign("kiosk", "ca", "subjectAltName=IP:127.0.0.1")
    sign("prometheus", "ca")
    sign("stranger", "other")
    return tmp_path


@pytest.fixture
def proxy(certificates: Path) -> Iterator[str]:
    """The example's nginx in front of a metrics output; its address."""
    nginx = program("nginx")

    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"emotion-edge {self.path}".encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        site = (FLEET / "nginx/emotion-edge.conf").read_text()
        for old, new in (
            ("/etc/nginx/kiosk", str(certificates)),
            ("listen 9443", f"listen 127.0.0.1:{port}"),
            ("127.0.0.1:9188", f"127.0.0.1:{server.server_address[1]}"),
        ):
            assert old in site
            site = site.replace(old, new)
        conf = certificates / "nginx.conf"
        places = "".join(
            f"{kind}_temp_path {certificates}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        conf.write_text(
            f"daemon off;\npid {certificates}/pid;\nevents {{}}\nhttp {{\n{places}{site}\n}}\n"
        )
        process = subprocess.Popen([nginx, "-e", "stderr", "-p", certificates, "-c", conf])
        try:
            end = time.monotonic() + 30
            while True:
                with socket.socket() as attempt:
                    if attempt.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.05)
            yield f"https://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
            thread.join()


def get(url: str, folder: Path, who: str = "") -> tuple[int, str]:
    """Status and body."""
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if who:
        context.load_cert_chain(folder / f"{who}.crt", folder / f"{who}.key")
    try:
        with urllib.request.urlopen(url, timeout=20, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_only_a_certificate_of_the_fleet_reads_metrics(proxy: str, certificates: Path) -> None:
    for path in ("/metrics", "/healthz"):
        assert get(proxy + path, certificates, "prometheus") == (200, f"emotion-edge {path}")
        for who in ("", "stranger"):
            status, body = get(proxy + path, certificates, who)
            assert status == 400 and "emotion-edge" not in body
    for path in ("/", "/metrics/x", "/metrics2"):
        assert get(proxy + path, certificates, "prometheus")[0] == 404
    plain = proxy.replace("https:", "http:")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{plain}/metrics", timeout=20)
    refused.value.close()
    assert refused.value.code == 400


# Ansible


def playbook(*words: str | Path, more: dict[str, str] | None = None) -> "tuple[int, str]":
    """Run ansible-playbook; its status and output."""
    done = run(
        program("ansible-playbook"),
        *words,
        cwd=ANSIBLE,
        env=os.environ
        | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "0", "LC_ALL": "C.UTF-8"}
        | (more or {}),
    )
    return done.returncode, done.stdout


def test_the_playbooks_are_valid() -> None:
    inventory = ANSIBLE / "inventory.example.yml"
    status, said = playbook("--syntax-check", "-i", inventory, "kiosks.yml", "rollback.yml")
    assert status == 0, said


@pytest.mark.slow
def test_the_playbooks_follow_ansible_lint(tmp_path: Path) -> None:
    copy = tmp_path / "ansible"
    shutil.copytree(ANSIBLE, copy)
    lint = program("ansible-lint")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = run(lint, "--offline", "--nocolor", cwd=copy, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stdout


@pytest.mark.slow  # a minute or two: Ansible starts a process for every task of every kiosk
@pytest.mark.timeout(7200)
def test_a_fleet_is_installed_updated_stopped_and_rolled_back(tmp_path: Path) -> None:
    """Two kiosks, each a disk in a folder, over Ansible's local connection, in two batches."""
    names = ("a", "b")
    kiosks = {name: Kiosk(tmp_path / name) for name in names}
    for kiosk in kiosks.values():
        for tool in ("apt-get", "useradd", "id", "apt-cache"):
            (kiosk.programs / tool).write_text("#!/bin/sh\n")
            (kiosk.programs / tool).chmod(0o755)
    programs = kiosks["a"].programs
    wheels = tmp_path / "wheels"
    hosts = {
        name: {"emotion_edge_root": str(kiosk.root), "emotion_edge_site": f"site {name}"}
        for name, kiosk in kiosks.items()
    }
    inventory = tmp_path / "inventory.yml"
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "emotion_edge_become": False,
        "emotion_edge_wheels": f"{wheels}/",
        "emotion_edge_trial_s": 0,
        "emotion_edge_batches": [1],
        "emotion_edge_retries": 1,
    }
    inventory.write_text(json.dumps({"kiosks": {"hosts": hosts, "vars": common}}))
    environment = kiosks["a"].environment | {"PATH": f"{programs}:{os.environ['PATH']}"}
    del environment["DESTDIR"]
    environment["ARCHITECTURE"] = "arm64"

    def play(book: str, *words: str) -> tuple[int, str]:
        return playbook("-i", inventory, *words, book, more=environment)

    wheel(wheels, "1.0")
    status, said = play("kiosks.yml")
    assert status == 0, said
    for name, kiosk in kiosks.items():
        assert kiosk.version() == kiosk.running == "1.0"
        site = kiosk.config.parent / "conf.d/50-site.toml"
        assert site.read_text() == f'site = "site {name}"\n'
    status, said = play("kiosks.yml")
    assert status == 0 and not re.search(r"changed=[1-9]", said), said
    # A bad release stops in the first batch.
    wheel(wheels, "1.1", BLIND)
    status, said = play("kiosks.yml", "-e", "emotion_edge_patience_s=1")
    assert status != 0 and "was rolled back: not healthy" in said
    assert [kiosk.version() for kiosk in kiosks.values()] == ["1.0", "1.0"]
    assert [("1.1" in kiosk.history) for kiosk in kiosks.values()] == [True, False]
    wheel(wheels, "1.2")
    status, said = play("kiosks.yml")
    assert status == 0, said
    assert {kiosk.running for kiosk in kiosks.values()} == {"1.2"}
    status, said = play("rollback.yml", "--limit", "b")
    assert status == 0, said
    assert [kiosk.running for kiosk in kiosks.values()] == ["1.2", "1.0"]
    assert UPDATE.exists()
