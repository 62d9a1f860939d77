"""Seeded defects: each is caught by the case that is meant for it, and what it breaks an operator can mend."""

import signal

import pytest

from testkit.provider.wire import always
from tests.cluster import test_lifecycle
from tests.cluster.stage import Stage, defective, that_takes_409_for_a_failure


@pytest.mark.core
def test_a_worker_that_exits_0_on_sigterm(stage: Stage) -> None:
    before = "return EXIT_DRAINED if state in (RunState.DRAINED, RunState.FINALIZED) else EXIT_INTERRUPTED"
    with defective(stage, "queue_eval/worker/worker.py", before, "return EXIT_DRAINED"):
        with pytest.raises(AssertionError, match=r"\[0\] == \[75\]"):
            test_lifecycle.test_sigterm_from_the_node_is_ignored_by_the_job(stage)
        stage.provider.latency = always(2.0)
        for pod in stage.running():
            stage.signal(pod, signal.SIGTERM)
        stage.until(lambda: stage.job().ended == "Complete")
        assert stage.state() == "SEALED"
        # until the finalizer's word is newer than the Job's end, it prints "look again in a while"
        stage.until(lambda: "started" in stage.k8s("reconcile", stage.run_id).out)
        stage.provider.latency = always(0.0)
        assert stage.verdict() == 0
        stage.audited(30)
    assert [job.number for job in stage.jobs()] == [1, 2]


def test_a_worker_that_leaves_on_an_empty_queue(stage: Stage) -> None:
    before = "if claims.state.over and not self._in_flight:"
    after = "if not claims.claims and claims.state is not RunState.OPEN and not self._in_flight:"
    with defective(stage, "queue_eval/worker/worker.py", before, after):
        with pytest.raises(AssertionError, match="stays"):
            test_lifecycle.test_no_worker_leaves_while_the_last_case_is_still_held(stage)
        stage.until(lambda: stage.job().succeeded)
        assert stage.state() == "SEALED"
        assert stage.verdict() == 0
        stage.audited(12)


def test_no_rule_for_75(stage: Stage) -> None:
    before = '{"action": "Ignore", "onExitCodes": _codes([EXIT_INTERRUPTED])}'
    after = '{"action": "Count", "onExitCodes": _codes([EXIT_INTERRUPTED])}'
    with (
        defective(stage, "queue_eval/kubernetes/jobs.py", before, after),
        pytest.raises(AssertionError, match=r"\(1, 'Complete'\) == \(0, 'Complete'\)"),
    ):
        test_lifecycle.test_sigterm_from_the_node_is_ignored_by_the_job(stage)


def test_a_client_that_takes_409_for_a_failure(stage: Stage) -> None:
    with that_takes_409_for_a_failure(stage), pytest.raises(AssertionError, match="already exists"):
        test_lifecycle.test_a_whole_run_from_submit_to_verdict(stage)
