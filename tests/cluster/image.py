"""The project's own image, built by buildah by its Dockerfile, on a Debian of our own: no registry of images can be reached here.

python -m tests.cluster.image ARCHIVE
"""

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from testkit.measured import ROOT
from testkit.redis_server import bundled
from tests.cluster.machine import CACHE, run

CERTIFICATES = "/etc/ssl/certs:/etc/ssl/certs:ro"  # this machine's registries have certificates of their own
BASE, IMAGE, REDIS_IMAGE = "localhost/python-base:1", "localhost/queue-eval:test", "localhost/redis:test"
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"


def build_base() -> None:
    """A minimal Debian with Python, in place of the official image."""
    if BASE in run("buildah", "images", "--format", "{{.Name}}:{{.Tag}}").split():
        return
    with tempfile.TemporaryDirectory(prefix="base-") as folder:
        root = Path(folder) / "root"
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root)
        for rubbish in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(root / rubbish, ignore_errors=True)
        container = run("buildah", "from", "scratch").strip()
        run("buildah", "add", "-q", container, root, "/")
        run("buildah", "commit", "-q", container, BASE)
        run("buildah", "rm", container)


def build_image() -> None:
    """In layers: what has not changed is not built again."""
    build_base()
    command = ["buildah", "build", "-q", "--layers", "-v", CERTIFICATES, "-f", "docker/Dockerfile"]
    run(*command, "--build-arg", f"PYTHON_IMAGE={BASE}", "-t", IMAGE, ".", cwd=ROOT)


def build_redis() -> None:
    """A Redis for the pods: the bundled server, which needs nothing but libc."""
    server = bundled()
    if server is None:
        raise SystemExit("no bundled redis-server to make an image of")
    container = run("buildah", "from", BASE).strip()
    run("buildah", "copy", "-q", container, server, "/usr/local/bin/redis-server")
    run("buildah", "commit", "-q", container, REDIS_IMAGE)
    run("buildah", "rm", container)


def archived() -> list[Path]:
    """Built where anything has changed; the archives for `local_cluster.load`."""
    return [_archive(IMAGE, build_image, _sources()), _archive(REDIS_IMAGE, build_redis, [Path(__file__)])]


def _archive(name: str, build: object, sources: list[Path]) -> Path:
    digest = hashlib.sha256()
    for path in sources:
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    stem = name.rpartition("/")[2].replace(":", "-")
    archive = CACHE / f"{stem}-{digest.hexdigest()[:12]}.tar"
    if archive.exists():
        return archive
    for old in CACHE.glob(f"{stem}-*.tar"):
        old.unlink()
    assert callable(build)
    CACHE.mkdir(parents=True, exist_ok=True)
    build_base()
    build()
    run("buildah", "push", "-q", name, f"docker-archive:{archive}:{name}")
    return archive


def _sources() -> list[Path]:
    files = [
        *(ROOT / "docker").iterdir(),
        *(ROOT / "requirements").iterdir(),
        ROOT / "pyproject.toml",
        ROOT / "hatch_build.py",
        ROOT / "README.md",
        ROOT / "LICENSE",
        ROOT / ".dockerignore",
    ]
    return sorted(
        [*files, *(p for p in (ROOT / "queue_eval").rglob("*") if p.is_file() and "__pycache__" not in p.parts)]
    )


if __name__ == "__main__":
    for found in archived():
        print(found, f"{found.stat().st_size / 1e6:.0f} MB", file=sys.stdout)
