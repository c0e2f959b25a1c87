"""What schedules the job, in deploy/: understood by what reads it, and the commands in it tried."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.making import write_files

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
SYSTEMD = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(SYSTEMD is None, reason="NOT CHECKED: there is no systemd-analyze here")


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A machine in small: the program at opt/, a configuration in etc/, two documents, a data folder in var/."""
    write_files(tmp_path / "documents", {"a.md": "Alpha.\n", "empty.md": b""})
    write_files(tmp_path / "etc", {"archivist.yaml": f"sources: [{{path: {tmp_path / 'documents'}}}]\n"})
    program = tmp_path / "opt" / "archivist"
    write_files(program.parent, {"archivist": f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m archivist "$@"\n'})
    program.chmod(0o755)
    (tmp_path / "var").mkdir()
    return tmp_path


def here(text: str, installed: Path) -> str:
    """A line of deploy/ with the paths of the machine in small."""
    places = {"/opt/archivist/bin/archivist": "opt/archivist", "/etc/archivist/": "etc/", "/var/lib/archivist": "var"}
    for place, name in places.items():
        text = text.replace(place, str(installed / name) + ("/" if name.endswith("/") else ""))
    return text


def shell(command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A line as /bin/sh runs it, with little in the environment."""
    return subprocess.run(
        ["/bin/sh", "-c", command], cwd=cwd, env={"PATH": os.environ["PATH"], **variables}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip


@needs_systemd
@pytest.mark.parametrize("unit", ["archivist-ingest.service", "archivist-ingest.timer"])
def test_systemd_understands_the_units(installed: Path, unit: str) -> None:
    """systemd-analyze verify finds no unknown key, no wrong value and no missing program."""
    for path in (DEPLOY / "systemd").iterdir():
        (installed / path.name).write_text(here(path.read_text(), installed))
    done = subprocess.run(
        [str(SYSTEMD), "verify", "--man=no", installed / unit], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit.split(".")[0] in line]) == (0, [])


@needs_systemd
def test_the_service_is_hardened() -> None:
    """systemd-analyze security gives it an exposure of at most 3 of 10."""
    unit = DEPLOY / "systemd" / "archivist-ingest.service"
    done = subprocess.run(
        [str(SYSTEMD), "security", "--offline=true", unit], capture_output=True, text=True, timeout=60, check=False
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found.group(1)) <= 3.0


@needs_systemd
def test_the_timer_rings_every_night() -> None:
    """Its calendar is understood, and the second ringing is a day after the first."""
    (calendar,) = re.findall(r"^OnCalendar=(.*)$", (DEPLOY / "systemd" / "archivist-ingest.timer").read_text(), re.MULTILINE)
    done = subprocess.run(
        [str(SYSTEMD), "calendar", "--iterations=2", calendar], capture_output=True, text=True, timeout=60, check=False
    )
    days = re.findall(r"(?:Next elapse|Iteration #2|Iter\. #2): \w+ \d{4}-\d\d-(\d\d) 02:15:00", done.stdout)
    assert (done.returncode, len(days), len(set(days))) == (0, 2, 2)


def test_the_command_of_the_service_runs(installed: Path) -> None:
    """Exit code 3, which the unit counts as success, for a folder with an empty file."""
    unit = here((DEPLOY / "systemd" / "archivist-ingest.service").read_text(), installed)
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    (variable,) = re.findall(r"^Environment=(.*)=(.*)$", unit, re.MULTILINE)
    done = shell(command, installed, **dict([variable]))
    assert done.returncode == 3, done.stderr
    assert "SuccessExitStatus=3" in unit
    assert (installed / "var" / "CURRENT").is_file()


def test_the_line_of_the_crontab_runs(installed: Path) -> None:
    """Silent where it went well or in part, as cron mails what is said; a failure says its code and keeps it."""
    lines = [line for line in (DEPLOY / "crontab").read_text().splitlines() if re.match(r"[\d*]", line)]
    (line,) = lines
    minute, hour, day, month, weekday, user, command = line.split(maxsplit=6)
    assert (minute, hour, day, month, weekday, user) == ("15", "2", "*", "*", "*", "archivist")
    assert "%" not in command, "cron takes it for a line break"
    done = shell(here(command, installed), installed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (report,) = [json.loads(path.read_text()) for path in (installed / "var" / "runs").iterdir()]
    assert (report["status"], report["documents"], len(report["failures"])) == ("published", 1, 1)
    shutil.rmtree(installed / "documents")
    failed = shell(here(command, installed), installed)
    assert (failed.returncode, failed.stderr) == (2, "")
    assert failed.stdout.startswith("archivist ingest ended with 2; see ")


def test_the_cronjob_is_what_it_should_be() -> None:
    """One at a time, not tried again, without privileges, as the image's user; every mount has its volume."""
    job = yaml.safe_load((DEPLOY / "kubernetes" / "ingest-cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert (job["spec"]["concurrencyPolicy"], job["spec"]["schedule"]) == ("Forbid", "15 2 * * *")
    assert job["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text()
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["name"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounts == {"data": False, "documents": True, "config": True, "tmp": False}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounts)


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 0), (1, 1), (4, 1)])
def test_the_command_of_the_cronjob_forgives_documents_that_failed(tmp_path: Path, code: int, expected: int) -> None:
    """Exit code 3 is a success for Kubernetes, and a refusal is a failure."""
    job = yaml.safe_load((DEPLOY / "kubernetes" / "ingest-cronjob.yaml").read_text())
    command = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:2] == ["sh", "-c"]
    program = write_files(tmp_path, {"archivist": f"#!/bin/sh\nexit {code}\n"}) / "archivist"
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert subprocess.run(command, env={"PATH": path}, timeout=20, check=False).returncode == expected
