"""Addresses where clouds keep their machines' credentials: no judge lives there."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult

from queue_eval.core.attempt import ErrorClass
from queue_eval.ports.judge_error import JudgeError

# beside the link-local ones: AWS over IPv6 (also for containers), Google over IPv6, Alibaba, Oracle, Azure
_OTHERS = {"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"}
_NAMES = {"metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal"}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def is_metadata(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or ip
    if inner in _NAT64:
        inner = ipaddress.IPv4Address(inner.packed[-4:])
    return inner.is_link_local or str(inner) in _OTHERS


def refused(host: str, addresses: Iterable[str]) -> JudgeError | None:
    for address in addresses:
        if is_metadata(address):
            return _refusal(f"{host} is {address}, where clouds keep credentials")
    return None


def _refusal(why: str) -> JudgeError:
    return JudgeError(f"judge.base_url: {why}; set judge.allow_link_local if that is right", ErrorClass.RUN_FATAL)


async def check(url: str, *, through_proxy: bool = False) -> None:
    """JudgeError when the URL leads there, or nowhere. `through_proxy`: only the proxy may know the name."""
    parts = urlsplit(url)
    if not parts.hostname:
        return
    if through_proxy and parts.hostname.lower() in _NAMES:
        raise _refusal(f"{parts.hostname} is where clouds keep credentials")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 443)
    except OSError as error:
        if through_proxy:
            return
        raise JudgeError(
            f"the judge's host {parts.hostname} cannot be resolved ({error.strerror or error})", ErrorClass.RETRY
        ) from error
    if refusal := refused(parts.hostname, (str(address[0]) for *_, address in found)):
        raise refusal


class GuardedResolver(ThreadedResolver):
    """Asks again for every connection: a name that led elsewhere when it was checked must not lead there later."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if refusal := refused(host, (one["host"] for one in found)):
            raise refusal
        return found
