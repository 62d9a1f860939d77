"""The network of the tests' cluster: an address of the node, addresses of pods, Services (kube-proxy) and their names (CoreDNS).

All of it stays on this machine. The addresses are of the range that is set aside for benchmarks (RFC 2544): no network that a
machine is in has them.
"""

import json
import os
import subprocess
from pathlib import Path

from tests.cluster.machine import BIN, STATE, run, start, stop

NODE_IP, PODS, SERVICES = "198.19.0.1", "198.18.0.0/24", "198.19.1.0/24"
DNS_IP, DOMAIN = NODE_IP, "cluster.local"
TOOLS = ("ip", "nft")

CNI, COREDNS = "1.9.0", "1.12.4"
_PLUGINS = "github.com/containernetworking/plugins/plugins"
PACKAGES = {
    "loopback": f"{_PLUGINS}/main/loopback@v{CNI}",
    "ptp": f"{_PLUGINS}/main/ptp@v{CNI}",
    "host-local": f"{_PLUGINS}/ipam/host-local@v{CNI}",
    "coredns": f"github.com/coredns/coredns@v{COREDNS}",
}
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_SYSCTLS_LEFT_ALONE = (
    "--conntrack-max-per-core=0",
    "--conntrack-tcp-timeout-established=0s",
    "--conntrack-tcp-timeout-close-wait=0s",
)
_KUBE_PROXY = "kube-proxy"
_TABLES = (("ip", _KUBE_PROXY), ("ip6", _KUBE_PROXY))


def lacking() -> list[str]:
    """Beside the programs: a container may be root and yet make no networks, and a node's own Services are not ours to touch."""
    if any(_has(table) for table in _TABLES) and not STATE.exists():
        return ["a machine without a kube-proxy of its own"]
    trial = f"qe-{os.getpid()}"
    made = subprocess.run(["ip", "link", "add", trial, "type", "veth"], check=False, capture_output=True, text=True)
    if made.returncode:
        return [f"the right to make networks ({made.stderr.strip()})"]
    run("ip", "link", "del", trial)
    return []


def _has(table: tuple[str, str]) -> bool:
    return subprocess.run(["nft", "list", "table", *table], check=False, capture_output=True).returncode == 0


def prepare() -> None:
    """Before anything listens: the node's address, and how a pod comes by its own."""
    (STATE / "ip_forward").write_text(_FORWARDING.read_text())  # which the first pod's cable turns on
    run("ip", "address", "replace", f"{NODE_IP}/32", "dev", "lo")
    # what is sent to a pod that is gone leaves this machine by no other way
    run("ip", "route", "replace", "unreachable", PODS)
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{STATE}/addresses",
    }
    # each pod is at the end of a cable of its own, so that what it sends to a Service passes by the node's rules
    cable = {"type": "ptp", "ipMasq": False, "ipam": ipam}
    (STATE / "cni").mkdir()
    (STATE / "cni" / "10-pods.conflist").write_text(
        json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [cable]})
    )
    (STATE / "Corefile").write_text(
        f". {{\n  bind {DNS_IP}\n  errors\n  kubernetes {DOMAIN} {{\n    kubeconfig {STATE}/kubeconfig local\n  }}\n}}\n"
    )


def begin(*, node: str) -> None:
    """Once there is an API server."""
    start("kube-proxy", BIN / _KUBE_PROXY, "--kubeconfig", STATE / "kubeconfig", f"--hostname-override={node}", "--proxy-mode=nftables",
          f"--cluster-cidr={PODS}", f"--nodeport-addresses={NODE_IP}/32", *_SYSCTLS_LEFT_ALONE, "--healthz-bind-address=127.0.0.1:10256")  # fmt: skip
    start("coredns", BIN / "coredns", "-conf", STATE / "Corefile")


def end() -> None:
    """After the last pod."""
    for name in ("coredns", "kube-proxy"):
        stop(name)
    if (before := STATE / "ip_forward").exists():
        _FORWARDING.write_text(before.read_text())
    for family, table in _TABLES:
        subprocess.run(["nft", "delete", "table", family, table], check=False, capture_output=True)
    subprocess.run(["ip", "route", "del", "unreachable", PODS], check=False, capture_output=True)
    subprocess.run(["ip", "address", "del", f"{NODE_IP}/32", "dev", "lo"], check=False, capture_output=True)
