"""A real one-node Kubernetes within this machine, built from released Go modules. For machines without kind, minikube or Docker.

python -m tests.cluster.local_cluster build|up|load ARCHIVE|down

`build` takes ten minutes on two cores when the cache is cold, seconds when warm; `up` ten seconds. Needs root, Go, gcc, and Debian's
etcd-server, runc, buildah, iproute2 and nftables.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import network
from tests.cluster.machine import BIN, CACHE, KUBERNETES, STATE, processes, run, start, stop, wait_for

CONTAINERD, KWOK, REGISTRY = "2.4.2", "0.8.0", "3.0.0"
KUBECONFIG = STATE / "kubeconfig"
AUDIT = STATE / "audit.log"  # what service accounts have asked the API server for, a JSON line each
NODE = "localhost"  # so that the API server finds the kubelet: kubectl logs and exec work

ETCD, ETCD_PEER, API = "http://127.0.0.1:12379", "http://127.0.0.1:12380", f"https://{network.NODE_IP}:16443"
TOKEN = "local-admin"  # of a server that only this machine reaches, and that lives for minutes
COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
TOOLS = ("go", "gcc", "etcd", "runc", "buildah", "debootstrap", "openssl", *network.TOOLS)
PAUSE_C = "#include <signal.h>\n#include <unistd.h>\nstatic void end(int s) { _exit(0); }\nint main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }\n"


def lacking() -> list[str]:
    """What this machine would need to have one."""
    root = [] if os.geteuid() == 0 else ["root"]
    return root + [tool for tool in TOOLS if shutil.which(tool) is None] or network.lacking()


# --- build -------------------------------------------------------------------------------------------------------------


def build() -> None:
    BIN.mkdir(parents=True, exist_ok=True)
    module = CACHE / "mod"
    module.mkdir(exist_ok=True)
    wanted = [name for name in COMPONENTS if not (BIN / name).exists()]
    if wanted:
        _write_go_mod(module)
    major, minor, _ = KUBERNETES.split(".")
    version = "k8s.io/component-base/version"
    flags = f"-s -w -X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
    for name in wanted:
        command = ["go", "build", "-mod=mod", "-trimpath", f"-ldflags={flags}", "-o", f"{BIN}/"]
        run(*command, f"k8s.io/kubernetes/cmd/{name}", cwd=module, CGO_ENABLED="0")
    containerd = "github.com/containerd/containerd/v2/cmd"
    installs = {name: f"{containerd}/{name}@v{CONTAINERD}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")}
    installs |= {"kwok": f"sigs.k8s.io/kwok/cmd/kwok@v{KWOK}", **network.PACKAGES}
    installs["registry"] = f"github.com/distribution/distribution/v3/cmd/registry@v{REGISTRY}"
    for name, package in installs.items():
        if not (BIN / name).exists():
            run("go", "install", package, GOBIN=str(BIN), CGO_ENABLED="0")
    _build_pause()


def _write_go_mod(module: Path) -> None:
    """Kubernetes replaces its staging modules by folders of its own tree; each is released beside it as v0.MINOR.PATCH."""
    facts = json.loads(run("go", "mod", "download", "-json", f"k8s.io/kubernetes@v{KUBERNETES}", cwd=module.parent))
    upstream = Path(facts["GoMod"]).read_text()
    staging = re.findall(r"^\s*(?:replace )?(k8s\.io/[a-z-]+) => \./staging", upstream, re.MULTILINE)
    go_version = re.findall(r"^go (\S+)", upstream, re.MULTILINE)[0]
    release = "v0." + KUBERNETES.split(".", 1)[1]
    lines = ["module cluster", f"go {go_version}", f"require k8s.io/kubernetes v{KUBERNETES}"]
    lines += [f"replace {name} => {name} {release}" for name in staging]
    (module / "go.mod").write_text("\n".join(lines) + "\n")


def _build_pause() -> None:
    """What holds a pod's namespaces."""
    archive = CACHE / "pause.tar"
    if archive.exists():
        return
    source, program = CACHE / "pause.c", CACHE / "pause"
    source.write_text(PAUSE_C)
    run("gcc", "-static", "-O2", "-o", program, source)
    container = run("buildah", "from", "scratch").strip()
    run("buildah", "add", "-q", container, program, "/pause")
    run("buildah", "config", "--entrypoint", '["/pause"]', container)
    run("buildah", "commit", "-q", container, "localhost/pause:1")
    run("buildah", "push", "-q", "localhost/pause:1", f"docker-archive:{archive}:localhost/pause:1")
    run("buildah", "rm", container)


def get(path: str) -> bytes | None:
    """From the API server, past its certificate: it is on loopback."""
    import ssl

    request = urllib.request.Request(f"{API}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=5, context=ssl._create_unverified_context()) as response:
            body: bytes = response.read()
            return body
    except (urllib.error.URLError, OSError):
        return None


# --- up and down -------------------------------------------------------------------------------------------------------


def up() -> Path:
    """The kubeconfig of a running cluster."""
    if STATE.exists():
        raise SystemExit(f"cluster: {STATE} is there: it is up already, or was not taken down")
    for folder in ("log", "pids"):
        (STATE / folder).mkdir(parents=True)
    _write_files()
    network.prepare()
    start("etcd", "etcd", "--data-dir", STATE / "etcd", "--name", "n0", "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD,
          "--listen-peer-urls", ETCD_PEER, "--initial-advertise-peer-urls", ETCD_PEER, "--initial-cluster", f"n0={ETCD_PEER}")  # fmt: skip
    start_api_server()
    start_controllers()
    start(
        "scheduler",
        BIN / "kube-scheduler",
        "--kubeconfig",
        KUBECONFIG,
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    )
    start("containerd", BIN / "containerd", "-c", STATE / "containerd.toml")
    wait_for("containerd", lambda: _ctr("version", check=False))
    load(CACHE / "pause.tar")
    network.begin(node=NODE)
    start_kubelet()
    return KUBECONFIG


def start_api_server() -> None:
    """Without lists by watching: Debian's etcd cannot report how far it is, which they need."""
    start("apiserver", BIN / "kube-apiserver", f"--etcd-servers={ETCD}", f"--bind-address={network.NODE_IP}", f"--advertise-address={network.NODE_IP}",
          "--secure-port=16443", f"--cert-dir={STATE}/certs", "--token-auth-file=tokens.csv", "--authorization-mode=Node,RBAC",
          f"--service-cluster-ip-range={network.SERVICES}", "--kubelet-preferred-address-types=Hostname",
          "--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=sa.pub",
          "--service-account-signing-key-file=sa.key", "--feature-gates=WatchList=false",
          "--audit-policy-file=audit.json", f"--audit-log-path={AUDIT}")  # fmt: skip
    wait_for("the API server", lambda: get("/readyz") == b"ok")


def start_controllers() -> None:
    start("controllers", BIN / "kube-controller-manager", "--kubeconfig", KUBECONFIG, "--bind-address=127.0.0.1", "--leader-elect=false",
          f"--service-cluster-ip-range={network.SERVICES}", "--service-account-private-key-file=sa.key", "--root-ca-file=certs/apiserver.crt")  # fmt: skip


def start_kubelet() -> None:
    start("kubelet", BIN / "kubelet", "--config", STATE / "kubelet.yaml", "--kubeconfig", KUBECONFIG,
          f"--hostname-override={NODE}", "--root-dir", STATE / "kubelet")  # fmt: skip
    wait_for("the node", _node_is_ready, within_s=90)


def _node_is_ready() -> bool:
    node = json.loads(get(f"/api/v1/nodes/{NODE}") or b"{}")
    conditions = node.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def load(archive: Path) -> None:
    _ctr("images", "import", str(archive))


def tag(image: str, name: str) -> None:
    _ctr("images", "tag", "--force", image, name)


def down() -> None:
    """Every process that `up` has started, every container and mount of it, then its files."""
    if not STATE.exists():
        return
    stop("kubelet")
    if (STATE / "pids" / "containerd").exists():
        _end_containers()
    for name in ("kwok", "registry", "containerd", "scheduler", "controllers"):
        stop(name)
    network.end()
    for name in ("apiserver", "etcd"):
        stop(name)
    for mount in reversed(list(_mounts())):
        subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(STATE, ignore_errors=True)
    if left := [*(f"mount {mount}" for mount in _mounts()), *processes()]:
        raise SystemExit(f"cluster: {', '.join(left)} outlived it")


def _end_containers() -> None:
    for task in _ctr("tasks", "ls", "-q", check=False).split():
        _ctr("tasks", "kill", "-s", "KILL", task, check=False)
    until = time.monotonic() + 10
    while left := _ctr("tasks", "ls", "-q", check=False).split():
        for task in left:
            _ctr("tasks", "rm", task, check=False)
        if time.monotonic() > until:
            return


def _mounts() -> Iterator[str]:
    for line in Path("/proc/mounts").read_text().splitlines():
        if f"{STATE}/" in line.split()[1]:
            yield line.split()[1]


def _ctr(*arguments: str, check: bool = True) -> str:
    command = [str(BIN / "ctr"), "-a", str(STATE / "containerd.sock"), "-n", "k8s.io", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"cluster: ctr {' '.join(arguments)}: {done.stderr[-500:]}")
    return done.stdout if done.returncode == 0 else ""


def _write_files() -> None:
    run("openssl", "genrsa", "-out", STATE / "sa.key", "2048")
    run("openssl", "rsa", "-in", STATE / "sa.key", "-pubout", "-out", STATE / "sa.pub")
    (STATE / "tokens.csv").write_text(f'{TOKEN},admin,1,"system:masters"\n')
    levels = [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]
    audit = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": levels}
    (STATE / "audit.json").write_text(json.dumps(audit))
    _write_kubeconfig()
    _write_containerd()
    _write_kubelet()


def _write_kubeconfig() -> None:
    KUBECONFIG.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "local",
                        "cluster": {"server": API, "certificate-authority": f"{STATE}/certs/apiserver.crt"},
                    }
                ],
                "users": [{"name": "admin", "user": {"token": TOKEN}}],
                "contexts": [{"name": "local", "context": {"cluster": "local", "user": "admin"}}],
                "current-context": "local",
            }
        )
    )  # JSON is YAML


def _write_containerd() -> None:
    (STATE / "containerd.toml").write_text(
        f"""version = 3
root = "{STATE}/containerd"
state = "{STATE}/containerd-run"
[grpc]
  address = "{STATE}/containerd.sock"
[ttrpc]
  address = "{STATE}/containerd.sock.ttrpc"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  # without CAP_SYS_RESOURCE runc cannot lower a score, and dies
  restrict_oom_score_adj = true
  # so that they are ended with the other mounts: a network of a pod that is left has the address of one to come
  netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{BIN}"]
  conf_dir = "{STATE}/cni"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  SystemdCgroup = false
  Root = "{STATE}/runc"
"""
    )


def _write_kubelet() -> None:
    (STATE / "kubelet.yaml").write_text(
        json.dumps(
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "address": "127.0.0.1",
                "healthzBindAddress": "127.0.0.1",
                "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
                "authorization": {"mode": "AlwaysAllow"},
                "containerRuntimeEndpoint": f"unix://{STATE}/containerd.sock",
                "clusterDNS": [network.DNS_IP],
                "clusterDomain": network.DOMAIN,
                "cgroupDriver": "cgroupfs",
                "failCgroupV1": False,
                "failSwapOn": False,
                "enforceNodeAllocatable": [],
                "localStorageCapacityIsolation": False,
                "makeIPTablesUtilChains": False,
                # an image that is loaded and one that is pulled may be the same
                "imagePullCredentialsVerificationPolicy": "NeverVerify",
                "imageGCHighThresholdPercent": 100,
                "imageMinimumGCAge": "1000h",
                "evictionHard": {"memory.available": "100Mi"},
                "nodeStatusUpdateFrequency": "4s",
            }
        )
    )


def main(arguments: list[str]) -> int:
    match arguments:
        case ["build"]:
            build()
        case ["up"]:
            print(up())
        case ["load", archive]:
            load(Path(archive))
        case ["down"]:
            down()
        case _:
            print(__doc__, file=sys.stderr)
            return 64
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
