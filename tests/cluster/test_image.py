"""What the image holds, seen from a container of it that runs."""

from pathlib import Path

import pytest

from tests.cluster.place import USER_ID
from tests.cluster.stage import Stage

NOT_TO_RUN = {"apt", "apt-get", "dpkg", "pip", "pip3", "cc", "gcc", "g++", "ld", "make"}


@pytest.mark.core
def test_no_compiler_no_package_manager_and_a_user_of_no_rights(stage: Stage) -> None:
    volume = {"name": "models", "emptyDir": {}}
    stage.write(4, kubernetes={"pod": {"volumes": [volume]}, "mounts": [{"name": "models", "mountPath": "/models"}]})
    stage.submit()
    stage.until(stage.running)
    process = Path("/proc") / str(stage.processes(stage.running()[0])[0])
    root = process / "root"
    commands = {found.name for folder in ("usr/bin", "usr/local/bin", "opt/venv/bin") for found in (root / folder).iterdir()}  # fmt: skip
    assert {"python3", "env", "stat"} <= commands
    assert not commands & NOT_TO_RUN
    assert not [found for found in root.glob("usr/**/pip") if found.is_dir()]
    assert [found.name for found in (root / "var/lib/dpkg").iterdir()] == ["status"]
    assert not list((root / "var/cache").iterdir())
    assert process.stat().st_uid == USER_ID
    assert (root / "models").is_dir()  # theirs, beside ours
    assert stage.verdict() == 0
    stage.audited(4)
