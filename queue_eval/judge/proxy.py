"""The proxy that the environment names for a judge: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in either case."""

from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from queue_eval.core.errors import ConfigError
from queue_eval.core.location import url_without_secret


def proxy_for(url: str) -> str | None:
    """Return the proxy's URL, or None where the judge is reached without one. No proxy stands before this very machine.

    ConfigError for one that does not speak HTTP.
    """
    parts = urlsplit(url)
    proxies = getproxies_environment()
    host = parts.hostname
    if (
        not host
        or _is_here(host)
        or proxy_bypass(parts.netloc.rpartition("@")[2])
        or _is_within(host, proxies.get("no", ""))
    ):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and (urlsplit(proxy).scheme.lower() not in ("http", "https") or not urlsplit(proxy).hostname):
        raise ConfigError(
            f"the environment names {url_without_secret(proxy)!a} as the proxy of {parts.scheme} addresses, and it has"
            f" to be http://HOST:PORT; export another {parts.scheme.upper()}_PROXY, or NO_PROXY={host}"
        )
    return proxy


def _is_within(host: str, networks: str) -> bool:
    """Whether NO_PROXY has a network, such as 10.0.0.0/8, with this address."""
    for word in networks.replace(",", " ").split():
        try:
            if "/" in word and ip_address(host) in ip_network(word, strict=False):
                return True
        except ValueError:
            continue
    return False


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
