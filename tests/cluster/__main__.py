"""`make test-cluster`: one cluster for two sessions of pytest. Most tests wait most of the time, so two run at once; then those that are marked `alone`. Of a cluster that KUBECONFIG names, one session for all.

python -m tests.cluster [--outcome FILE] [PYTEST OPTION …]
"""

import os
import sys

from tests.ci.suite import Outcome, options, run_suite
from tests.cluster import local_cluster
from tests.cluster.own import own_cluster

ALONE = ("-n", "0")


def main(chosen: list[str]) -> Outcome:
    if "KUBECONFIG" in os.environ or local_cluster.lacking():
        # of a cluster that other people use too, or of none: each session takes away at its end what it has created there
        return run_suite(["tests/cluster", *chosen, *ALONE])
    outcome = Outcome()
    with own_cluster() as kubeconfig:
        os.environ["KUBECONFIG"] = kubeconfig
        # what fails is tried again while the cluster is there
        for session in (("-m", "not alone", "-n", "2", "--dist", "worksteal"), ("-m", "alone", *ALONE)):
            outcome.add(run_suite(["tests/cluster", *chosen, *session]))
    return outcome


if __name__ == "__main__":
    file, given = options(sys.argv[1:])
    found = main(given)
    if file:
        found.write(file)
    sys.exit(bool(found.failed))
