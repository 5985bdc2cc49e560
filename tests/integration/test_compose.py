"""The compose file, run for real: its images are built, its services found over their published ports, one of
them killed.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from support.ledger import Json, due, read
from support.ports import free_ports
from support.servers import require_docker, until

ROOT = Path(__file__).parents[2]
SERVICES = ("appointment", "financial")
"""What is started by name, with what it depends on: Kafdrop only looks on."""
BUILT_TIMEOUT, DONE_TIMEOUT = 900, 300
SHOWN = 50
"""Lines of each log, from its end."""


class Deployment:
    """The compose file as a project of its own, on host ports that are free here; everything else is as it
    stands.
    """

    def __init__(self, folder: Path) -> None:
        text = (ROOT / "compose.yaml").read_text()
        appointment, first, *_, last = free_ports(1 + 10)
        for ours, free in {"8000": f"{appointment}", "8001-8010": f"{first}-{last}"}.items():
            assert text.count(f"127.0.0.1:{ours}:") == 1
            text = text.replace(f"127.0.0.1:{ours}:", f"127.0.0.1:{free}:")
        file = folder / "compose.yaml"
        file.write_text(text)
        command = ["docker", "compose"] if succeeds("docker", "compose", "version") else ["docker-compose"]
        self._compose = [
            *command,
            "--file",
            str(file),
            "--project-directory",
            str(ROOT),
            "--project-name",
            f"clinic-{uuid4().hex}",
        ]

    def compose(self, *arguments: str, within: int = DONE_TIMEOUT) -> str:
        return run(*self._compose, *arguments, within=within)

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()


def run(*command: str, within: int = DONE_TIMEOUT) -> str:
    """What it wrote to standard output. Where it fails, what it complained of is shown."""
    # Without buildx there is only the classic builder.
    builder = {} if succeeds("docker", "buildx", "version") else {"DOCKER_BUILDKIT": "0"}
    done = subprocess.run(
        command, env=os.environ | builder, capture_output=True, text=True, timeout=within, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def succeeds(*command: str) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """Nothing of it is left behind. Its logs are shown where the test fails."""
    require_docker()
    made = Deployment(tmp_path)
    yield made
    print(made.compose("logs", "--no-color", f"--tail={SHOWN}"))  # noqa: T201 — pytest shows it with a failure
    made.compose("down", "--volumes", "--rmi=local")


def ready(container: str, port: int) -> str:
    """The address at which the container answers, once it does. It may be another one after each start."""
    url = f"http://{run('docker', 'port', container, str(port)).split()[0]}"

    def answers() -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{url}/health/ready", trust_env=False).is_success
        return False

    until(answers, url)
    return url


def is_healthy(container: str) -> bool:
    return run("docker", "inspect", "--format", "{{ .State.Health.Status }}", container).strip() == "healthy"


def finished(url: str) -> Json:
    """An appointment that was started and finished there."""
    people = {"physician_id": str(uuid4()), "patient_id": str(uuid4())}
    with httpx.Client(base_url=url, trust_env=False) as http:
        started = read(http.post("/", json=people).raise_for_status())
        appointment: Json = read(http.post(f"/{started['id']}/").raise_for_status())
        return appointment


def assert_charged(url: str, appointment: Json) -> None:
    answer = httpx.get(
        f"{url}/{appointment['id']}/", headers={"Prefer": "wait=30"}, timeout=40, trust_env=False
    )
    assert read(answer.raise_for_status())["total_price"] == due(appointment)


@pytest.mark.timeout(1500)
def test_the_whole_system_survives_a_killed_container_scales_and_keeps_its_data(
    deployment: Deployment,
) -> None:
    deployment.compose("up", "--build", "--detach", *SERVICES, within=BUILT_TIMEOUT)
    (appointment,), (financial,) = (deployment.containers(service) for service in SERVICES)
    appointments, charges = ready(appointment, 8000), ready(financial, 8001)
    first = finished(appointments)
    assert_charged(charges, first)

    run("docker", "kill", financial)
    meanwhile = finished(appointments)
    run("docker", "start", financial)
    assert_charged(ready(financial, 8001), meanwhile)

    deployment.compose("up", "--detach", "--no-recreate", "--scale", "financial=2", *SERVICES)
    instances = deployment.containers("financial")
    assert len(instances) == 2
    for each in [ready(instance, 8001) for instance in instances]:
        assert_charged(each, finished(appointments))

    until(
        lambda: all(is_healthy(each) for each in (appointment, *instances)), "the health of every container"
    )

    deployment.compose("down")
    deployment.compose("up", "--detach", *SERVICES)
    (financial,) = deployment.containers("financial")
    assert_charged(ready(financial, 8001), first)


def test_no_variable_and_no_env_file_changes_what_the_compose_file_says() -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert "$" not in text
    assert "env_file" not in text
