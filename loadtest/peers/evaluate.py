"""`deepeval.evaluate()`, in the folder of the cases: python -m loadtest.peers.evaluate IN_FLIGHT THROTTLE_S CACHE, which is 0 or 1."""

import sys

from loadtest.peers.judging import case, metrics, rows, scored


def main(in_flight: str, throttle_s: str, cache: str) -> None:
    from deepeval import evaluate
    from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig, ErrorConfig

    all_rows = rows()
    result = evaluate(
        [case(row) for row in all_rows],
        metrics(),
        async_config=AsyncConfig(run_async=True, max_concurrent=int(in_flight), throttle_value=float(throttle_s)),
        display_config=DisplayConfig(show_indicator=False, print_results=False),
        cache_config=CacheConfig(write_cache=cache == "1", use_cache=cache == "1"),
        error_config=ErrorConfig(ignore_errors=True),
    )
    by_name = {row["name"]: row for row in all_rows}
    for one in result.test_results:
        if all(metric.score is not None for metric in one.metrics_data):
            scored(by_name[one.name])


if __name__ == "__main__":
    main(*sys.argv[1:])
