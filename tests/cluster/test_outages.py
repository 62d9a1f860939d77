"""What the cluster itself does to a run: its parts go away for a while."""

import signal

import pytest

from testkit.provider.wire import always
from tests.cluster import local_cluster, machine
from tests.cluster.stage import WORKERS, Stage, stays

pytestmark = pytest.mark.alone

AWAY_S = 30


@pytest.fixture
def own_cluster(kubeconfig: str) -> None:
    """Its parts can be stopped."""
    if kubeconfig != str(local_cluster.KUBECONFIG):
        pytest.skip("the parts of another's cluster are not ours to stop")


def test_without_the_api_server_for_a_while_the_run_goes_on_and_a_waiting_client_too(
    stage: Stage, own_cluster: None
) -> None:
    stage.provider.latency = always(1.0)
    stage.begin(40)
    with stage.started("wait") as waiting:
        before = stage.stored
        machine.stop("apiserver")
        assert stays(lambda: waiting.poll() is None, for_s=AWAY_S)
        assert stage.stored > before
        local_cluster.start_api_server()
        out, err = waiting.communicate(timeout=120)
    assert (waiting.returncode, "verdict: pass" in out) == (0, True), err
    assert "Traceback" not in err
    stage.audited(40)


def test_without_the_controllers_for_a_while_a_lost_worker_is_replaced_later(stage: Stage, own_cluster: None) -> None:
    stage.provider.latency = always(1.0)
    stage.begin(80)
    machine.stop("controllers")
    gone = stage.running()[0]
    stage.delete_pod(gone)
    stage.until(lambda: gone not in stage.running())
    assert stays(lambda: len(stage.running()) <= 1, for_s=AWAY_S)
    local_cluster.start_controllers()
    assert stage.verdict() == 0
    stage.audited(80)


def test_without_the_kubelet_for_a_while_the_containers_go_on(stage: Stage, own_cluster: None) -> None:
    stage.provider.latency = always(1.0)
    stage.begin(40)
    before = stage.stored
    machine.stop("kubelet")
    stage.until(lambda: stage.stored > before + 4)
    local_cluster.start_kubelet()
    assert stage.verdict() == 0
    stage.audited(40)


def test_a_node_that_is_lost_is_named_and_the_run_goes_on_when_the_cluster_gives_it_up(
    stage: Stage, own_cluster: None
) -> None:
    """As a machine that loses its power: nothing of the run is alive, and its pods' last word is that they run."""
    stage.provider.latency = always(1.0)
    stage.begin(24)
    machine.stop("kubelet")
    for role in ("worker", "finalizer"):
        for pod in stage.running(role):
            stage.signal(pod, signal.SIGKILL)
    done = stage.k8s("wait", stage.run_id, "--blocked-timeout", "5", timeout_s=150)
    assert (done.code, "its node localhost does not answer" in done.err) == (69, True), done.err
    stage.cluster._patiently("DELETE", "/api/v1/nodes/localhost")
    stage.until(lambda: not stage.running("finalizer") and stage.pods("finalizer"))
    local_cluster.start_kubelet()
    assert stage.verdict(within_s=240) == 0
    stage.audited(24)


@pytest.mark.core
def test_a_redis_pod_that_is_killed_mid_run_comes_back_and_costs_no_delivery(stage: Stage) -> None:
    stage.provider.latency = always(0.5)
    # a request to a pod that is gone has no answer for as long as a connection takes to be given up
    stage.begin(40, workers={**WORKERS, "lease_s": 20})
    stage.delete_pod("redis-0", at_once=True)
    assert stage.verdict() == 0
    accounting = stage.audited(40)
    assert (accounting["executions"], accounting["unrecorded_executions"]) == (40, 0)
    assert not stage.ends() or {end.code for end in stage.ends()} == {0}
