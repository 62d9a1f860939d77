"""A cluster of this machine's own, with the project's images and an empty store."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster import local_cluster
from tests.cluster.image import archived
from tests.cluster.stage import prepare_store


@contextmanager
def own_cluster() -> Iterator[str]:
    """Its kubeconfig; with the block everything of it ends."""
    local_cluster.build()
    archives = archived()
    local_cluster.down()  # of a session that was killed
    try:
        kubeconfig = local_cluster.up()
        for archive in archives:
            local_cluster.load(archive)
        prepare_store()
        yield str(kubeconfig)
    finally:
        local_cluster.down()
