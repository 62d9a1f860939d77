"""Seeded defects: each shows in the case that is meant for it, and what it breaks can be mended by an operator."""

import signal

from loadtest.provider.wire import always
from queue_eval.core.errors import EXIT_INTERRUPTED
from tests.cluster.stage import Stage, defective, slow_case, that_takes_409_for_a_failure


def test_a_worker_that_exits_0_on_sigterm_freezes_its_job_and_reconcile_starts_another(stage: Stage) -> None:
    """Complete, and the run not drained."""
    stage.provider.latency = always(0.3)
    before = "return EXIT_DRAINED if state in (RunState.DRAINED, RunState.FINALIZED) else EXIT_INTERRUPTED"
    with defective(stage, "queue_eval/worker/worker.py", before, "return EXIT_DRAINED"):
        stage.begin(60)
        for pod in stage.running():
            stage.signal(pod, signal.SIGTERM)
        stage.until(lambda: stage.job().ended == "Complete")
        assert stage.state() == "SEALED"
        reconciled = stage.k8s("reconcile", stage.run_id)
        assert (reconciled.code, "started" in reconciled.out) == (0, True), reconciled.out + reconciled.err
        assert stage.verdict() == 0
        stage.audited(60)
    assert [job.number for job in stage.jobs()] == [1, 2]


def test_a_worker_that_leaves_on_an_empty_queue_is_seen_by_the_last_held_lease(stage: Stage) -> None:
    stage.provider.fault = slow_case(5, hang_s=12)
    before = "if claims.state.over and not self._in_flight:"
    after = "if not claims.claims and claims.state is not RunState.OPEN and not self._in_flight:"
    with defective(stage, "queue_eval/worker/worker.py", before, after):
        stage.begin(12, stored=11)
        stage.until(lambda: stage.job().succeeded == 1)
        assert stage.state() == "SEALED"
        assert stage.verdict() == 0


def test_without_the_rule_for_75_a_node_that_sends_sigterm_costs_retries(stage: Stage) -> None:
    stage.provider.latency = always(0.3)
    before = '{"action": "Ignore", "onExitCodes": _codes([EXIT_INTERRUPTED])}'
    after = '{"action": "Count", "onExitCodes": _codes([EXIT_INTERRUPTED])}'
    with defective(stage, "queue_eval/kubernetes/jobs.py", before, after):
        stage.begin(30)
        stage.signal(stage.running()[0], signal.SIGTERM)
        stage.until(lambda: EXIT_INTERRUPTED in [end.code for end in stage.ends()])
        stage.until(lambda: stage.job().failed == 1)
        assert stage.verdict() == 0


def test_a_client_that_takes_409_for_a_failure_cannot_repeat_a_submit(stage: Stage) -> None:
    with that_takes_409_for_a_failure(stage):
        stage.write(4)
        stage.submit()
        again = stage.k8s("submit", "eval.yaml", "--run-id", stage.run_id)
        assert (again.code, "already exists" in again.err) == (70, True)
