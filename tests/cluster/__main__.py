"""`make test-cluster`: one cluster for two sessions of pytest. Most tests wait most of the time, so two run at once; then those that are marked `alone`. Of a cluster that KUBECONFIG names, one session for all.

python -m tests.cluster [PYTEST OPTION …]
"""

import os
import subprocess
import sys

from tests.cluster import local_cluster
from tests.cluster.own import own_cluster

NOTHING_CHOSEN = 5  # pytest's exit code


def main(options: list[str]) -> int:
    if "KUBECONFIG" in os.environ or local_cluster.lacking():
        # of a cluster that somebody else uses too, or of none: each session takes away at its end what it has created there
        return sessions(options, ["-n", "0"])
    with own_cluster() as kubeconfig:
        os.environ["KUBECONFIG"] = kubeconfig
        return sessions(options, ["-m", "not alone", "-n", "2", "--dist", "worksteal"], ["-m", "alone", "-n", "0"])


def sessions(options: list[str], *chosen: list[str]) -> int:
    command = [sys.executable, "-m", "pytest", "tests/cluster", *options]
    codes = [subprocess.run([*command, *which], check=False).returncode for which in chosen]
    ran = [code for code in codes if code != NOTHING_CHOSEN]
    # a session that a signal has ended has a code below zero
    return next((code for code in ran if code), 0 if ran else NOTHING_CHOSEN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
