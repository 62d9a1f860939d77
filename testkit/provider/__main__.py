"""A provider in a process of its own; prints its base URL and serves until it has to stop.

python -m testkit.provider --requests 600 --window-s 6 --kind sliding --latency lognormal:0.2:0.5
"""

import argparse
import asyncio
import random
import signal

from testkit.provider.server import Provider, Rule
from testkit.provider.wire import SPELLINGS, faults_by_chance, latency


def provider(args: argparse.Namespace) -> Provider:
    chance = random.Random(args.seed)
    draw = faults_by_chance(chance, errors=args.errors, resets=args.resets, hangs=args.hangs, hang_s=args.hang_s)
    limits = {"requests": args.requests, "tokens": args.tokens, "input": args.input, "output": args.output}
    least, most = args.output_tokens
    return Provider(
        host=args.host,
        latency=latency(args.latency, chance),
        fault=lambda _n, _body: draw(),
        rules=tuple(
            Rule(dimension=name, kind=args.kind, limit=limit, window_s=args.window_s, charges=args.charges)
            for name, limit in limits.items()
            if limit
        ),
        retry_after=args.retry_after,
        headers=args.headers,
        lexical=args.lexical,
        output_tokens=lambda: chance.randint(least, most),
        keep_bodies=False,
    )


async def serve(args: argparse.Namespace) -> None:
    served, stop = provider(args), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await served.serve(args.port)
    print(served.url, flush=True)
    await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--kind", default="sliding", choices=["sliding", "fixed", "bucket", "second"])
    parser.add_argument("--window-s", type=float, default=60.0)
    for name in ("requests", "tokens", "input", "output"):
        parser.add_argument(f"--{name}", type=float, help="per window")
    parser.add_argument("--charges", default="used", choices=["used", "asked"])
    parser.add_argument("--retry-after", default="seconds", choices=list(SPELLINGS))
    parser.add_argument("--headers", default="none", choices=["none", "openai", "anthropic", "azure"])
    parser.add_argument("--latency", default="0")
    parser.add_argument("--errors", type=float, default=0.0, help="share of requests answered 503")
    parser.add_argument("--resets", type=float, default=0.0, help="share of requests whose connection is closed")
    parser.add_argument("--hangs", type=float, default=0.0, help="share of requests that get nothing for --hang-s")
    parser.add_argument("--hang-s", type=float, default=60.0)
    parser.add_argument("--lexical", action="store_true", help="answer what DeepEval's metrics ask")
    parser.add_argument("--output-tokens", type=int, nargs=2, default=(20, 20), metavar=("LEAST", "MOST"))
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
