"""queue-eval judge"""

import asyncio
import time

import click

from queue_eval.cli.output import print_lines
from queue_eval.core.errors import UnavailableError


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="0 takes a free one")
@click.option("--latency-ms", type=click.FloatRange(min=0), default=0.0, show_default=True)
@click.option(
    "--requests-per-minute", type=click.FloatRange(min=1), help="answer 429 to more than this in any sliding minute"
)
@click.option(
    "--window-s",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="the sliding window. The limit stays per minute",
)
def command(port: int, latency_ms: float, requests_per_minute: float | None, window_s: float) -> int:
    """Serve the lexical judge as an OpenAI-compatible endpoint on loopback, to try an `openai` judge without a key."""
    from queue_eval.judge.endpoint import LexicalEndpoint, serve  # noqa: PLC0415 - imports aiohttp's server

    endpoint = LexicalEndpoint(
        latency_s=latency_ms / 1000,
        requests_per_minute=requests_per_minute,
        window_s=window_s,
        now=time.monotonic,
        sleep=asyncio.sleep,
    )

    async def until_stopped() -> None:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        ready.add_done_callback(lambda done: print_lines(f"http://127.0.0.1:{done.result()}/v1"))
        await serve(endpoint, port=port, ready=ready)

    try:
        asyncio.run(until_stopped())
    except OSError as error:
        raise UnavailableError(f"port {port}: {error.strerror or error}; choose another with --port") from None
    return 0
