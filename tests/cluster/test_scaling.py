"""A thousand cases while the crew changes: nothing is lost or doubled, and throughput follows the workers."""

import time

from loadtest.provider.server import Provider, Rule
from loadtest.provider.wire import always
from tests.cluster.stage import Stage

WINDOW_S, PER_WINDOW = 6.0, 600.0


def calls_of_a_window(provider: Provider, until: float) -> int:
    """Those that were surely made in it: a call that arrived while the provider stood still is counted when it goes on."""
    began = until - WINDOW_S
    stood_still_s = max((late_s for when, late_s in provider.stalls if began <= when <= until + 0.1), default=0.0)
    return sum(began + stood_still_s <= at <= until for at in provider.arrivals)


def test_a_thousand_cases_with_three_eight_two_and_six_workers(stage: Stage) -> None:
    stage.provider.watch()
    stage.provider.latency = always(0.5)
    stage.provider.limit((Rule(limit=PER_WINDOW, window_s=WINDOW_S),))
    limits = {"requests_per_minute": PER_WINDOW * 60 / WINDOW_S, "window": "sliding", "window_s": WINDOW_S}
    stage.write(1000, kubernetes={"workers": 3}, limits=limits)
    stage.submit()
    stage.until(lambda: stage.stored > 0)
    rates = {}
    for workers, until_stored in ((3, 120), (8, 480), (2, 600), (6, 1000)):
        assert stage.k8s("scale", stage.run_id, str(workers)).code == 0
        stage.until(lambda workers=workers: len(stage.running()) == workers or stage.stored >= 1000, within_s=90)  # type: ignore[misc]
        assert stage.job().backoff_limit >= 4 * workers  # a crew that was small at first may lose as many
        began, before = time.monotonic(), stage.stored
        stage.until(lambda until_stored=until_stored: stage.stored >= until_stored, within_s=240)  # type: ignore[misc]
        rates[workers] = (stage.stored - before) / (time.monotonic() - began)
    assert stage.verdict() == 0
    accounting = stage.audited(1000)
    assert accounting["unrecorded_executions"] == 0
    # docs/kubernetes.md: eight pods start on two cores, and a provider that stands still meanwhile counts calls late
    assert accounting["retries_429"] == stage.provider.statuses[429] <= 2
    assert all(calls_of_a_window(stage.provider, at) <= PER_WINDOW for at in stage.provider.refused_at)
    assert rates[2] < rates[3] < rates[8], rates
    assert rates[2] < rates[6], rates
    assert stage.job().failed == 0
