"""How workers begin, leave and end: each adversarial case with real pods, and the accounting held against the provider's own count."""

import json
import signal
from collections.abc import Iterator

import boto3
import pytest
from redis import Redis

from queue_eval.core.errors import EXIT_DRAINED, EXIT_INTERRUPTED
from queue_eval.kubernetes.status import pod_end
from testkit.must_have import needs_versitygw
from testkit.provider.wire import always
from testkit.s3_server import CREDENTIALS, versitygw
from testkit.waiting import wait_until
from tests.cluster import poison
from tests.cluster.place import LEASE_S, MACHINE, REDIS_URL
from tests.cluster.stage import CALLS_OF_A_CASE, KILLED, Stage, poisoned, slow_case, stays


@pytest.mark.core
def test_a_whole_run_from_submit_to_verdict(stage: Stage) -> None:
    stage.write(30)
    first = stage.submit()
    assert first.out.count("created") == 4
    assert stage.verdict() == 0
    again = stage.submit("--workers", "7")
    assert again.out.count("is there already") == 4
    assert "scale" in again.out  # seven are for a new Job
    accounting = stage.audited(30)
    assert accounting["executions"] == 30
    status = stage.status()
    assert (status["state"], status["report"]["verdict"]) == ("FINALIZED", "pass")
    assert {end.code for end in stage.ends()} == {EXIT_DRAINED}


def test_workers_that_start_before_the_seal_and_on_an_empty_queue_stay(stage: Stage) -> None:
    stage.write(10)
    stage.provider.latency = always(12.0)  # the producer's pre-flight call takes so long: nothing is enqueued yet
    stage.submit()
    stage.until(lambda: len(stage.running()) == 2)
    assert stage.state() == ""
    assert stays(lambda: not stage.ends(), for_s=4)
    stage.provider.latency = always(0.0)
    assert stage.verdict() == 0
    stage.audited(10)
    assert [end.code for end in stage.ends()] == [EXIT_DRAINED, EXIT_DRAINED]


def test_no_worker_leaves_while_the_last_case_is_still_held(stage: Stage) -> None:
    """Drain while a lease is held: the queue is empty, and workers without work stay."""
    stage.provider.fault = slow_case(5, latency_s=12)
    stage.begin(12, kubernetes={"workers": 3}, stored=11)
    assert stays(lambda: not stage.ends() and stage.state() == "SEALED", for_s=4)
    assert stage.verdict() == 0
    stage.audited(12)


@pytest.mark.core
def test_the_last_lease_holder_dies_while_the_others_idle(stage: Stage) -> None:
    stage.provider.fault = slow_case(5, latency_s=30)
    stage.begin(12, kubernetes={"workers": 3}, stored=11)
    holder = stage.pod_with(work=True)
    stage.provider.fault = lambda _n, _body: None
    stage.signal(holder, signal.SIGKILL)
    assert stage.verdict() == 0
    accounting = stage.audited(12)
    assert accounting["unrecorded_executions"] == 1


def test_sigkill_between_a_result_and_the_word_that_it_is_there(stage: Stage) -> None:
    """Redis answers no client meanwhile, so whatever is stored then is not finished."""
    stage.provider.latency = always(0.5)
    stage.begin(40)
    with Redis.from_url(REDIS_URL) as redis:
        redis.client_pause(8000, all=True)
    before = stage.stored
    stage.until(lambda: stage.stored >= before + 2, within_s=6)
    for pod in stage.running():
        stage.signal(pod, signal.SIGKILL)
    stored_then = stage.stored
    assert stage.verdict() == 0
    accounting = stage.audited(40)
    assert stored_then < 40
    # what was stored is not judged again: those of its executions that were killed are in the books
    assert accounting["unrecorded_executions"] <= 2 * 4 - (stored_then - before)


@pytest.mark.core
def test_scale_down_loses_nothing_and_its_exit_is_not_counted(stage: Stage) -> None:
    stage.provider.latency = always(0.3)
    stage.write(60, kubernetes={"workers": 3})
    stage.submit()
    stage.until(lambda: stage.stored >= 6 and len(stage.running()) == 3)
    assert stage.k8s("scale", stage.run_id, "1").code == 0
    stage.until(lambda: len(stage.running()) == 1)
    assert stage.job().failed == 0
    assert stage.k8s("scale", stage.run_id, "3").code == 0
    stage.until(lambda: len(stage.running()) == 3)
    assert stage.verdict() == 0
    accounting = stage.audited(60)
    assert accounting["unrecorded_executions"] == 0
    assert stage.job().failed == 0


@pytest.mark.alone
def test_deletion_eviction_and_a_drained_node_give_everything_back(stage: Stage) -> None:
    stage.provider.latency = always(1.0)
    stage.begin(160)
    gone = stage.running()[0]
    stage.delete_pod(gone)
    stage.until(lambda: gone not in stage.running() and len(stage.running()) == 2)
    with stage.cordoned():
        for name in stage.running():
            stage.evict(name)
        stage.until(lambda: not stage.running())
    stage.until(lambda: len(stage.running()) == 2)
    stage.provider.latency = always(0.0)
    assert stage.verdict() == 0
    accounting = stage.audited(160)
    assert accounting["unrecorded_executions"] == 0
    # evicted pods are known by their condition, and never counted
    assert stage.job().failed == 0


def test_sigterm_from_the_node_is_ignored_by_the_job(stage: Stage) -> None:
    """Exit code 75 and no condition: only the rule for it keeps the Job from counting."""
    stage.provider.latency = always(0.3)
    stage.begin(30)
    ended = stage.running()[0]
    stage.signal(ended, signal.SIGTERM)
    stage.until(stage.ends)
    assert [end.code for end in stage.ends()] == [EXIT_INTERRUPTED]
    assert stage.verdict() == 0
    accounting = stage.audited(30)
    assert accounting["unrecorded_executions"] == 0
    stage.until(lambda: stage.job().ended)
    assert (stage.job().failed, stage.job().ended) == (0, "Complete")


def test_a_worker_that_has_to_leave_in_its_first_moment_claims_nothing(stage: Stage) -> None:
    """Before Python has begun, where the first process of a container gets no signal that it does not block or handle."""
    stage.provider.latency = always(1.0)
    stage.begin(60)
    before = stage.pods()
    assert stage.k8s("scale", stage.run_id, "3").code == 0
    stage.until(lambda: len(stage.pods()) > len(before))
    (new,) = {pod["metadata"]["name"] for pod in stage.pods()} - {pod["metadata"]["name"] for pod in before}
    wait_until(lambda: stage.processes(new), within_s=60)
    stage.signal(new, signal.SIGTERM)
    stage.until(lambda: EXIT_INTERRUPTED in [end.code for end in stage.ends()], within_s=20)
    assert not any(line["pod"] == new for line in stage.printed("start"))
    stage.provider.latency = always(0.0)
    assert stage.verdict() == 0
    accounting = stage.audited(60)
    assert accounting["unrecorded_executions"] == 0
    stage.until(lambda: stage.job().ended)
    assert (stage.job().failed, stage.job().ended) == (0, "Complete")


@pytest.mark.core
def test_sigkill_is_counted_and_its_cases_are_leased_again(stage: Stage) -> None:
    stage.provider.latency = always(0.3)
    stage.begin(30)
    stage.signal(stage.pod_with(work=True), signal.SIGKILL)
    stage.until(lambda: int(stage.run_hash().get("reaped", 0)) > 0, within_s=15)
    assert stage.verdict() == 0
    accounting = stage.audited(30)
    assert 0 < accounting["unrecorded_executions"] <= 4
    assert stage.job().failed == 1


def test_a_case_that_exhausts_the_memory_is_dead_and_the_others_finish(stage: Stage) -> None:
    """OOMKilled by a real memory limit, until the case has killed three."""
    with poisoned(stage, poison.EATS_MEMORY):
        stage.write(12, kubernetes={"workers": 2}, metrics=[{"type": "poison:Poison"}], gate={})
        stage.submit()
        assert stage.verdict(within_s=240) in (0, 2)
    accounting = stage.audited(12, dead=1)
    (row,) = [row for row in stage.rows() if row["status"] == "dead"]
    assert "died" in row["reason"] or "crash" in row["reason"], row
    assert [end.reason for end in stage.ends()].count("OOMKilled") >= 3
    assert accounting["unrecorded_executions"] >= 3


@pytest.mark.core
def test_a_worker_that_was_stopped_past_its_lease_finishes_nothing_twice(stage: Stage) -> None:
    """A zombie: its leases are others' when it goes on."""
    stage.provider.latency = always(0.3)
    stage.begin(72)  # enough that it holds cases still when the signal reaches it
    zombie = stage.pod_with(work=True)
    stage.signal(zombie, signal.SIGSTOP)
    stage.until(lambda: int(stage.run_hash().get("reaped", 0)) > 0, within_s=10 * LEASE_S)
    stage.signal(zombie, signal.SIGCONT)
    assert stage.verdict() == 0
    accounting = stage.audited(72)
    assert accounting["unrecorded_executions"] == 0
    assert accounting["executions"] > 72


def test_a_worker_that_is_stuck_is_ended_by_its_probe_and_the_others_go_on(stage: Stage) -> None:
    stage.provider.latency = always(0.3)
    stage.begin(24, retry={"call_timeout_s": 5, "case_attempts": 3}, kubernetes={"liveness_s": 65})
    stage.signal(stage.pod_with(work=True), signal.SIGSTOP)  # for good: not even SIGTERM reaches it
    stage.until(lambda: KILLED in [end.code for end in stage.ends()], within_s=180)
    assert stage.verdict() == 0
    assert 0 < stage.audited(24)["unrecorded_executions"] <= 4


def test_no_workers_at_first_then_some(stage: Stage) -> None:
    stage.write(10)
    stage.submit("--workers", "0")
    stage.until(lambda: stage.state() == "SEALED")
    assert stage.pods() == []
    with stage.started("logs", "--role", "worker", "-f") as reading:
        assert stage.k8s("scale", stage.run_id, "2").code == 0
        assert stage.verdict() == 0
        out, err = reading.communicate(timeout=60)
    # of pods that began after the reader did, to their end
    assert (reading.returncode, err) == (0, "")
    assert out.count('"event": "start"') == out.count('"event": "exit"') == 2
    stage.audited(10)


def test_scaling_while_all_is_scored_and_not_yet_reported(stage: Stage) -> None:
    """The drained instant, for as long as the finalizer is stopped."""
    stage.write(10)
    stage.submit()
    stage.until(lambda: stage.running("finalizer"))
    (finalizer,) = stage.running("finalizer")
    stage.signal(finalizer, signal.SIGSTOP)
    stage.until(lambda: stage.state() == "DRAINED")
    scaled = stage.k8s("scale", stage.run_id, "3")
    stage.signal(finalizer, signal.SIGCONT)
    assert scaled.code == 0, scaled.err
    assert stage.verdict() == 0
    assert stage.audited(10)["executions"] == 10


def test_scaling_after_the_first_success_starts_a_further_job(stage: Stage) -> None:
    stage.write(10)
    stage.submit()
    assert stage.verdict() == 0
    before = (stage.store / "report.json").read_bytes()
    scaled = stage.k8s("scale", stage.run_id, "3")
    assert (scaled.code, "can no longer grow" in scaled.out) == (0, True)
    stage.until(lambda: stage.job(2).ended == "Complete")
    assert (stage.store / "report.json").read_bytes() == before
    stage.audited(10)


def test_suspending_after_a_success_completes_the_job_and_loses_nothing(stage: Stage) -> None:
    stage.provider.fault = slow_case(5, latency_s=6)
    stage.begin(12, stored=11)
    idle = stage.pod_with(work=False)
    stage.signal(idle, signal.SIGSTOP)
    stage.until(lambda: stage.job().succeeded == 1)
    stage.patch_workers(suspend=True)
    stage.signal(idle, signal.SIGCONT)
    assert stage.verdict() == 0
    stage.audited(12)
    stage.until(lambda: stage.job().ended == "Complete")
    rest = stage.k8s("reconcile", stage.run_id)
    assert (rest.code, "nothing to do" in rest.out) == (0, True)


def test_a_job_that_fails_after_the_drain_has_done_its_work(stage: Stage) -> None:
    """Failed, and drained: backoffLimit exceeded by a worker that was not needed any more."""
    stage.provider.fault = slow_case(5, latency_s=6)
    stage.begin(12, stored=11)
    idle = stage.pod_with(work=False)
    stage.signal(idle, signal.SIGSTOP)
    stage.patch_workers(backoffLimit=0)
    stage.until(lambda: stage.state() in ("DRAINED", "FINALIZED"))
    stage.signal(idle, signal.SIGKILL)
    assert stage.verdict() == 0
    stage.audited(12)
    stage.until(lambda: stage.job().ended == "Failed")
    rest = stage.k8s("reconcile", stage.run_id)
    assert (rest.code, "nothing to do" in rest.out) == (0, True)
    assert len(stage.jobs()) == 1


def test_a_deadline_mid_run_is_named_and_the_run_goes_on_with_further_workers(stage: Stage) -> None:
    stage.provider.latency = always(0.5)
    stage.begin(60, stored=4)
    with stage.started("wait", "--blocked-timeout", "8") as waiting:
        stage.patch_workers(activeDeadlineSeconds=1)
        stage.until(lambda: stage.job().ended == "Failed")
        assert "failed (DeadlineExceeded)" in stage.k8s("status", stage.run_id).out
        reconciled = stage.k8s("reconcile", stage.run_id)
        assert (reconciled.code, "DeadlineExceeded" in reconciled.err) == (69, True)
        # the finalizer's own time is not over: who waits goes on
        assert stays(lambda: waiting.poll() is None, for_s=12)
        stage.provider.latency = always(0.0)
        stage.patch_workers(activeDeadlineSeconds=600)
        assert stage.k8s("scale", stage.run_id, "2").code == 0
        _, shown = waiting.communicate(timeout=120)
    assert (waiting.returncode, "failed (DeadlineExceeded)" in shown) == (0, True), shown
    stage.audited(60)


def test_a_deadline_has_a_verdict_and_what_further_workers_do_has_another(stage: Stage) -> None:
    stage.provider.latency = always(1.0)
    stage.begin(200, stored=4, kubernetes={"deadline_s": 25})
    assert stage.verdict() == 2
    incomplete = json.loads((stage.store / "report.json").read_bytes())
    assert 0 < incomplete["accounting"]["missing"] < 200
    stage.provider.latency = always(0.0)
    assert stage.k8s("scale", stage.run_id, "2").code == 0
    assert stage.verdict() == 0
    stage.audited(200)


def test_a_run_that_is_deleted_and_submitted_again_at_once_goes_on_where_it_stood(stage: Stage) -> None:
    stage.provider.latency = always(0.5)
    stage.begin(40, stored=6)
    assert stage.k8s("delete", stage.run_id).code == 0
    before = stage.stored
    stage.provider.latency = always(0.0)
    stage.submit()
    assert stage.verdict() == 0
    assert before >= 6
    stage.audited(40)


def test_two_finalizers_write_the_same_bytes(stage: Stage) -> None:
    stage.write(10)
    stage.submit()
    second = stage.second_finalizer()
    assert stage.verdict() == 0
    first = (stage.store / "report.json").read_bytes()
    stage.until(lambda: second().ended == "Complete")
    assert (stage.store / "report.json").read_bytes() == first
    stage.audited(10)


def test_a_ttl_takes_the_jobs_and_leaves_the_results(stage: Stage) -> None:
    stage.write(10, kubernetes={"keep_s": 3})
    stage.submit()
    assert stage.verdict() == 0
    stage.until(lambda: not stage.jobs() and not stage.pods("finalizer"))
    gone = stage.k8s("status", stage.run_id)
    assert (gone.code, "has nothing of it" in gone.err) == (66, True)
    stage.audited(10)


@pytest.mark.core
def test_cancel_releases_what_is_held_and_the_run_never_passes(stage: Stage) -> None:
    stage.provider.latency = always(1.0)
    stage.begin(40)
    assert stage.k8s("cancel", stage.run_id).code == 0
    assert stage.verdict() == 2
    accounting = stage.audited(40, scored=stage.stored)
    assert (accounting["unrecorded_executions"], accounting["missing"] > 0) == (0, True)
    assert stage.state() == "ABORTED"
    stage.until(lambda: stage.job().ended == "Failed")
    assert {pod_end(pod).code for pod in stage.pods() if pod_end(pod)} == {65}  # type: ignore[union-attr]
    assert stage.k8s("delete", stage.run_id).code == 0
    stage.until(lambda: not stage.jobs() and not stage.pods())


@pytest.fixture
def s3_server() -> Iterator[str]:
    """A real one on this machine, where pods reach it."""
    needs_versitygw()
    with versitygw(host=MACHINE) as url:
        yield url


def test_a_run_whose_results_lie_in_a_bucket(stage: Stage, s3_server: str) -> None:
    """Its objects are what the report was made of."""
    stage.environment_of_pods({**CREDENTIALS, "AWS_ENDPOINT_URL": s3_server})
    client = boto3.client(
        "s3",
        endpoint_url=s3_server,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
    )
    client.create_bucket(Bucket=stage.run_id)
    stage.write(20, store=f"s3://{stage.run_id}/nightly", kubernetes={"volume_claim": None})
    stage.submit()
    stage.until(lambda: stage.executions() > 2)
    stage.signal(stage.running()[0], signal.SIGKILL)
    assert stage.verdict() == 0
    prefix = f"nightly/{stage.run_id}/"
    names = [row["Key"] for row in client.list_objects_v2(Bucket=stage.run_id, Prefix=f"{prefix}results/")["Contents"]]
    report = json.loads(client.get_object(Bucket=stage.run_id, Key=f"{prefix}report.json")["Body"].read())
    accounting = report["accounting"]
    assert len(names) == len(set(names)) == accounting["scored"] == accounting["cases"] == 20
    hidden = stage.provider.admitted - accounting["judge_calls"]
    assert 0 <= hidden <= accounting["unrecorded_executions"] * 2 * CALLS_OF_A_CASE
