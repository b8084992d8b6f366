"""The container files name what is there: sources, extras, commands, settings, the health check."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from gateway.settings import Environment
from tests.running import free_port, in_thread, variables
from tests.test_docs import VARIABLES, check_command

ROOT = Path(__file__).parent.parent
IMAGE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = (ROOT / "compose.yaml").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"PATH", "PYTHONUNBUFFERED"}  # the image's, not the gateway's
ENV = dict(re.findall(r"([A-Z_]+)=(\S+)", re.search(r"^ENV (.*)$", IMAGE, re.MULTILINE)[1]))  # type: ignore[index]
SET = dict(re.findall(r'^    ([A-Z][A-Z_]+): "?([^"\n]*)', COMPOSE, re.MULTILINE))


def test_every_copied_source_exists_and_is_let_through() -> None:
    let = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = [line.split()[1:-1] for line in IMAGE.splitlines() if line.startswith("COPY ")]
    names = {name for names in copied for name in names if names[0] != "--from=build"}
    assert names == let
    assert all((ROOT / name).exists() for name in names)


def test_the_image_has_every_extra_of_the_product() -> None:
    installed = re.search(r'"\.\[([a-z,]+)\]"', IMAGE)
    assert installed is not None
    extras = set(PROJECT["optional-dependencies"]) - {"dev", "bench"}
    assert set(installed[1].split(",")) == extras


def test_the_base_is_a_python_that_the_product_takes() -> None:
    bases = set(re.findall(r"^FROM python:(\d+\.\d+)-slim", IMAGE, re.MULTILINE))
    assert bases == {PROJECT["requires-python"].removeprefix(">=")}


def test_every_command_exists() -> None:
    said = re.findall(r"^CMD (\[.*\])$", IMAGE, re.MULTILINE)
    said += re.findall(r"command: (\[.*\])", COMPOSE)
    assert len(said) == 3
    for program, *words in map(json.loads, said):
        assert program == "gateway"
        check_command(words, "")


def test_every_setting_exists_and_holds() -> None:
    assert set(ENV) - OWN <= VARIABLES
    given = {name: value for name, value in SET.items() if not name.startswith(("POSTGRES_", "PG"))}
    assert set(given) <= VARIABLES
    assert Environment({name: ENV[name] for name in set(ENV) - OWN}).settings.port == 8000
    assert str(Environment(given).settings.data_dir) == ENV["DATA_DIR"]


def test_no_password_is_written_down() -> None:
    for name, value in SET.items():
        if "PASSWORD" in name:
            assert value.startswith("${POSTGRES_PASSWORD:?"), name


def test_it_has_the_time_to_end_in_order() -> None:
    patience = Environment({}).settings.shutdown_timeout
    for given in re.findall(r"stop_grace_period: (\d+)s", COMPOSE):
        assert int(given) >= 2 * patience


def test_it_runs_as_a_user_of_its_own_by_numbers() -> None:
    user = re.search(r"^USER (\d+):(\d+)$", IMAGE, re.MULTILINE)
    assert user is not None
    assert f"--gid {user[2]} " in IMAGE
    assert f"--uid {user[1]} " in IMAGE


def healthy(port: int) -> bool:
    """What the image's own health check says of a port."""
    found = re.search(r"^HEALTHCHECK .*?CMD (\[.*\])$", IMAGE, re.MULTILINE)
    assert found is not None
    program, *words = json.loads(found[1])
    assert program == "python"
    nowhere = f"http://127.0.0.1:{free_port()}"
    env = {**os.environ, "PORT": str(port), "http_proxy": nowhere, "HTTP_PROXY": nowhere}
    ended = subprocess.run([sys.executable, *words], env=env, capture_output=True, timeout=60)
    return ended.returncode == 0


def test_the_health_check_tells_a_gateway_that_runs_from_none(
    tmp_path: Path, sqlite_url: str
) -> None:
    with in_thread(variables(tmp_path, sqlite_url)) as gateway:
        assert healthy(int(gateway.url.rpartition(":")[2]))
    assert not healthy(free_port())
