"""check and explain by manifests alone."""

from __future__ import annotations

import json
from pathlib import Path

POLICY = """apiVersion: networking.aviatrix.com/v1alpha1
kind: FirewallPolicy
metadata: {name: crm, namespace: obot-mcp}
spec:
  smartGroups:
    - {name: internet, selectors: [{cidr: 0.0.0.0/0}]}
  webGroups:
    - {name: crm, domains: [api.crm.example, "*.files.crm.example"]}
  rules:
    - name: allow-crm
      action: permit
      protocol: tcp
      port: 443
      selector: {matchLabels: {app: crm}}
      destinationSmartGroups: [{name: internet}]
      webGroups: [{name: crm}]
---
apiVersion: v1
kind: Pod
metadata: {name: crm-0, namespace: obot-mcp, uid: u-1, labels: {app: crm}}
status: {podIPs: [{ip: 10.244.0.7}]}
"""


def write(tmp_path: Path, text: str, name: str = "crm.yaml") -> Path:
    """A folder with one manifest."""
    folder = tmp_path / "manifests"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_good_manifests_are_0(nameward, tmp_path: Path) -> None:
    """The summary is on standard error, so that standard output holds findings alone."""
    done = nameward("check", str(write(tmp_path, POLICY)))
    assert done.returncode == 0
    assert "1 files, 1 policies, 1 pods: 0 errors" in done.stderr


def test_errors_are_1_with_place_and_fix(nameward, tmp_path: Path) -> None:
    """File, document, pointer, message, fix: in the text and as JSON."""
    folder = write(tmp_path, POLICY.replace("action: permit", "action: permitt"))
    done = nameward("check", str(folder))
    assert done.returncode == 1
    assert f"error: {folder}/crm.yaml, document 1, /spec/rules/0/action" in done.stdout
    found = [row for row in nameward.json("check", str(folder)) if row["severity"] == "error"]
    assert found[0]["pointer"] == "/spec/rules/0/action"
    assert set(found[0]) == {"file", "document", "pointer", "severity", "message", "fix"}
    assert "permit" in found[0]["fix"]


def test_a_folder_is_read_as_the_enforcer_reads_it(nameward, tmp_path: Path) -> None:
    """Hidden files and other endings are not manifests; folders below are."""
    folder = write(tmp_path, POLICY)
    (folder / ".hidden.yaml").write_text("{")
    (folder / "notes.txt").write_text("{")
    (folder / "below").mkdir()
    (folder / "below" / "bad.yml").write_text("kind: {")
    files = {Path(row["file"]).name for row in nameward.json("check", str(folder))}
    assert "bad.yml" in files
    assert not files & {".hidden.yaml", "notes.txt"}


def test_a_path_that_is_not_there_is_2(nameward, tmp_path: Path) -> None:
    """Nothing to check is not "fine"."""
    done = nameward("check", str(tmp_path / "absent"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "absent: No such file or directory" in done.stderr
    (tmp_path / "empty").mkdir()
    assert nameward("check", str(tmp_path / "empty")).returncode == 2


def test_a_manifest_cannot_speak_to_the_terminal(nameward, tmp_path: Path) -> None:
    """Names of fields and files are escaped."""
    folder = write(tmp_path, POLICY.replace("action: permit", '"a\\e[2J": permit'), "evil\x1b[2J.yaml")
    done = nameward("check", str(folder))
    assert "\x1b" not in done.stdout
    assert r"evil\x1b[2J.yaml" in done.stdout


def test_explain_offline(nameward, tmp_path: Path) -> None:
    """The same answer as on the node: permitted by a rule, or denied with the nearest pattern."""
    folder = str(write(tmp_path, POLICY))
    done = nameward("explain", "obot-mcp/crm-0", "api.crm.example:443", "--manifests", folder)
    assert done.returncode == 0
    assert "obot-mcp/crm/allow-crm" in done.stdout
    denied = nameward("explain", "obot-mcp/crm-0", "api2.crm.example", "--manifests", folder, "-o", "json")
    assert denied.returncode == 1
    row = json.loads(denied.stdout)
    assert (row["verdict"], row["nearest"], row["grants"]) == ("deny", "api.crm.example", [])
    port = nameward("explain", "obot-mcp/crm-0", "api.crm.example:80", "--manifests", folder)
    assert port.returncode == 1
    raw = nameward("explain", "obot-mcp/crm-0", "198.41.0.4:443", "--manifests", folder)
    assert raw.returncode == 1


def test_explain_of_a_pod_that_no_manifest_declares(nameward, tmp_path: Path) -> None:
    """Says so instead of guessing."""
    done = nameward("explain", "obot-mcp/other", "a.example", "--manifests", str(write(tmp_path, POLICY)))
    assert done.returncode == 1
    assert "no Pod obot-mcp/other" in done.stderr


def test_a_daemon_needs_a_configuration(nameward) -> None:
    """Exit 2 with the mistake, before anything starts."""
    nameward.config.write_text("policy: {}\n")
    for command in ("node", "enforcer", "resolver"):
        done = nameward(command)
        assert done.returncode == 2
        assert "policy.governedNamespaces" in done.stderr
