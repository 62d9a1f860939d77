"""Addresses where clouds keep their machines' credentials: no judge lives there."""

import asyncio
import ipaddress
import socket
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult

from queue_eval.core.attempt import ErrorClass
from queue_eval.ports.judge_error import JudgeError

# beside the link-local ones: AWS over IPv6 (also for containers), Google over IPv6, Alibaba, Oracle, Azure
_OTHERS = {"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"}
_NAMES = {
    "metadata.google.internal", "metadata.goog", "metadata", "metadata.azure.internal", "metadata.tencentyun.com",
    "metadata.platformequinix.com", "instance-data", "instance-data.ec2.internal",
}  # fmt: skip
# an IPv4 address in the last 32 bits: RFC 6052, RFC 8215 as most use it, the old "compatible" form, and RFC 2765
_LAST_BITS = [ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")]
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215, as RFC 6052 lays out a prefix of 48 bits


def is_metadata(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return any(one.is_link_local or str(one) in _OTHERS for one in (ip, *_within(ip)))


def _within(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses that a translator or a tunnel may make of it."""
    if isinstance(ip, ipaddress.IPv4Address):
        return
    yield from filter(None, (ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())))
    if any(ip in net for net in _LAST_BITS) or ip.packed[8:12] in (b"\0\0\x5e\xfe", b"\2\0\x5e\xfe"):
        yield ipaddress.IPv4Address(ip.packed[-4:])
    if ip in _LOCAL_NAT64:
        yield ipaddress.IPv4Address(ip.packed[6:8] + ip.packed[9:11])


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
    if _plain(parts.hostname) in _NAMES:
        raise _refusal(f"{parts.hostname} is where clouds keep credentials")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(parts.hostname, parts.port or 443)
    except (OSError, UnicodeError) as error:
        if through_proxy:
            return
        raise JudgeError(
            f"the judge's host {parts.hostname} cannot be resolved ({getattr(error, 'strerror', None) or error})",
            ErrorClass.RETRY,
        ) from error
    if refusal := refused(parts.hostname, (str(address[0]) for *_, address in found)):
        raise refusal


def _plain(host: str) -> str:
    """Without what resolvers take for the same: wide letters, capitals, the root's dot."""
    return unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower().rstrip(".")


class GuardedResolver(ThreadedResolver):
    """Asks again for every connection: a name that led elsewhere when it was checked must not lead there later."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if refusal := refused(host, (one["host"] for one in found)):
            raise refusal
        return found
