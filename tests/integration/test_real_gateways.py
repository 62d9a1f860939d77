"""Whole runs through real gateways. What they answer in trouble, as it was recorded, is tests/unit/test_gateways.py."""

from pathlib import Path

import pytest

from testkit.command import CANARY, queue_eval, report, write_cases, write_eval
from testkit.gateways import litellm, nginx
from testkit.provider.server import Provider
from testkit.provider.wire import Fault

CASES = 20


@pytest.mark.parametrize("status", [503, 429])
def test_a_limit_of_nginx_costs_few_refusals_and_no_case(tmp_path: Path, provider: Provider, status: int) -> None:
    """503 is what its limit_req answers by itself, without a word of when to come again."""
    write_cases(tmp_path, CASES)
    limit = f"limit_req zone=one burst=5 nodelay; limit_req_status {status};"
    with nginx(tmp_path, provider.url, per_s=20, more=limit) as url:
        limits = {"requests_per_minute": 1200, "window_s": 1}
        done = queue_eval("run", write_eval(tmp_path, url, limits=limits), "--run-id", "r1", cwd=tmp_path)
    assert done.code == 0, done.err
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["judge_calls"]) == (CASES, provider.admitted)
    assert accounting["retries_429"] <= 0.1 * provider.admitted


def test_a_limit_of_nginx_that_the_file_does_not_know_costs_no_case(tmp_path: Path, provider: Provider) -> None:
    write_cases(tmp_path, CASES)
    with nginx(tmp_path, provider.url, per_s=20, more="limit_req zone=one burst=5 nodelay;") as url:
        done = queue_eval("run", write_eval(tmp_path, url), "--run-id", "r1", cwd=tmp_path)
    assert done.code == 0, done.err
    accounting = report(tmp_path, "r1")["accounting"]
    assert (accounting["scored"], accounting["judge_calls"]) == (CASES, provider.admitted)
    # twice as many in vain as were needed, when this was found
    assert accounting["retries_429"] <= provider.admitted


def test_a_proxy_that_gives_slow_calls_up_gets_fewer_of_them_at_once(tmp_path: Path, provider: Provider) -> None:
    """The judge serves two at a time; what waits longer than a second for it is answered 504."""
    write_cases(tmp_path, CASES)
    provider.serves, provider.latency = 2, lambda: 0.2
    limits = {"requests_per_minute": 60_000}  # so all go at once, in the beginning
    with nginx(tmp_path, provider.url, timeout_s=1) as url:
        path = write_eval(tmp_path, url, limits=limits, retry={"base_delay_s": 0.05, "call_attempts": 8})
        done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
    assert done.code == 0, done.err
    assert report(tmp_path, "r1")["accounting"]["scored"] == CASES
    # each call that the gateway gave up reached the judge: 16 at once would be eight of ten, again and again
    assert timeouts(tmp_path) <= 0.5 * (provider.admitted - timeouts(tmp_path))


def timeouts(folder: Path) -> int:
    """Answers 504 that nginx has given."""
    return (folder / "access.log").read_text().count('" 504 ')


def test_a_run_through_litellm(tmp_path: Path, provider: Provider) -> None:
    """The provider's 429 comes with Retry-After under LiteLLM's own name; a wrong model ends before the run."""
    write_cases(tmp_path, 6)
    refusal = Fault(429, headers={"Retry-After": "2"})
    provider.fault = lambda n, _body: refusal if n == 9 else None
    with litellm(tmp_path, provider.url, key=CANARY) as url:
        path = write_eval(tmp_path, url)
        done = queue_eval("run", path, "--run-id", "r1", cwd=tmp_path)
        assert done.code == 0, done.err
        accounting = report(tmp_path, "r1")["accounting"]
        assert (accounting["scored"], accounting["judge_calls"]) == (6, provider.admitted)
        assert accounting["retries_429"] == 1
        assert max(b - a for a, b in zip(provider.arrivals, provider.arrivals[1:], strict=False)) >= 2
        judge = {"type": "openai", "model": "nope", "base_url": url, "api_key_env": "JUDGE_API_KEY"}
        wrong = queue_eval("run", write_eval(tmp_path, url, judge=judge), "--run-id", "r2", cwd=tmp_path)
        assert (wrong.code, "does not know the model" in wrong.err) == (77, True), wrong.err
        provider.fault = lambda _n, _body: Fault(401)
        refused = queue_eval("run", write_eval(tmp_path, url), "--run-id", "r3", cwd=tmp_path)
        assert refused.code == 77, refused.err
