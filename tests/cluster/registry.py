"""A registry of images on loopback, which containerd speaks plain HTTP to, and docker as far as the docs use it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testkit.waiting import listens, wait_until
from tests.cluster.image import BASE, CERTIFICATES
from tests.cluster.machine import BIN, STATE, start, stop

ADDRESS, PORT = "127.0.0.1", 15000

DOCKER = f"""#!/bin/sh
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
verb=$1
shift
case $verb in
  build) exec buildah build -q --layers -v {CERTIFICATES} --build-arg PYTHON_IMAGE={BASE} "$@" ;;
  push) exec buildah push -q --tls-verify=false "$@" ;;
esac
exit 64
"""


@contextmanager
def registry() -> Iterator[str]:
    """Its host and port, as in an image's name."""
    config = STATE / "registry.json"  # JSON is YAML
    storage = {"filesystem": {"rootdirectory": str(STATE / "registry")}}
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": f"{ADDRESS}:{PORT}"}}))
    start("registry", BIN / "registry", "serve", config)
    try:
        wait_until(lambda: listens(ADDRESS, PORT), within_s=30)
        yield f"{ADDRESS}:{PORT}"
    finally:
        stop("registry")


def write_docker(folder: Path) -> None:
    program = folder / "docker"
    program.write_text(DOCKER)
    program.chmod(0o755)
