"""One cluster for all tests. Where Go and root are missing the tests are skipped by name; with KUBECONFIG set they use that cluster."""

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from queue_eval.kubernetes.cluster import Cluster, connect
from queue_eval.kubernetes.errors import ClusterError
from testkit.command import CANARY
from testkit.provider.server import Provider
from testkit.waiting import wait_until
from tests.cluster import local_cluster
from tests.cluster.image import REDIS_IMAGE
from tests.cluster.objects import driver_rights, namespace, redis, secret, store_volume
from tests.cluster.own import own_cluster
from tests.cluster.place import MACHINE, NAMESPACE, REDIS_PORT, REDIS_URL
from tests.cluster.stage import Stage, prepare_store


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[str]:
    """Of a cluster that holds the project's own image."""
    if given := os.environ.get("KUBECONFIG"):
        yield given
        return
    if lacking := local_cluster.lacking():
        pytest.skip(f"no cluster can be made on this machine: it lacks {', '.join(lacking)}")
    with own_cluster() as own:
        yield own


@pytest.fixture(scope="session")
def cluster(kubeconfig: str) -> Iterator[Cluster]:
    is_own = kubeconfig == str(local_cluster.KUBECONFIG)
    os.environ["KUBECONFIG"] = kubeconfig
    found = connect(namespace=NAMESPACE)
    must_be_this_machine(found)
    if not is_own:
        prepare_store()
    bodies = [
        namespace(),
        *store_volume(),
        secret("judge-credentials", {"JUDGE_API_KEY": CANARY}),
        *redis(REDIS_IMAGE, REDIS_PORT),
        *driver_rights(),
    ]
    created = [f"{path}/{body['metadata']['name']}" for path, body in bodies if is_new(found, path, body)]
    wait_until(redis_answers, within_s=60)
    yield found
    # our own goes down with all that is in it, and until then another session may need it
    for path in reversed([] if is_own else created):
        found._patiently("DELETE", path)


def must_be_this_machine(cluster: Cluster) -> None:
    """Before anything is created: judge and store are on this machine, and signals reach the pods' processes from it."""
    nodes = cluster._patiently("GET", "/api/v1/nodes")["items"]
    here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if [node["status"]["nodeInfo"]["bootID"] for node in nodes] != [here]:
        pytest.exit(
            "KUBECONFIG names a cluster that is not of one node on this machine's kernel, and these tests need such a one, with the "
            "images localhost/queue-eval:test and localhost/redis:test loaded; unset it, and they start their own",
            returncode=1,
        )


def is_new(cluster: Cluster, path: str, body: dict[str, Any]) -> bool:
    try:
        cluster._patiently("POST", path, body=body)
    except ClusterError:
        # another session's, which has created it: a 409, and a 422 where its port is taken
        cluster._patiently("GET", f"{path}/{body['metadata']['name']}")
        return False
    return True


def redis_answers() -> bool:
    try:
        with Redis.from_url(REDIS_URL) as redis:
            return bool(redis.ping())
    except RedisError:
        return False


@pytest.fixture
def stage(request: pytest.FixtureRequest, tmp_path: Path, cluster: Cluster, kubeconfig: str) -> Iterator[Stage]:
    """A run of its own, gone afterwards."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())[:30].strip("-")
    provider = Provider(host=MACHINE, keep_bodies=False).start()
    here = Stage(
        f"{name}-{base64.b32encode(os.urandom(3)).decode().strip('=').lower()}", tmp_path, provider, cluster, kubeconfig
    )
    yield here
    here.k8s("delete", here.run_id)
    here.redis.close()
    provider.close()
