"""Where the tests' cluster keeps what."""

import os
from pathlib import Path

from tests.cluster.network import NODE_IP

NAMESPACE = "queue-eval-test"
STORE = Path("/tmp/queue-eval-cluster-store")  # a hostPath, which must belong to the pods' user
REDIS_PORT = 30379  # of the node, so that this machine reaches it too
# The node of the tests' own cluster is this machine; kind's is a container of it:
MACHINE = os.environ.get("QUEUE_EVAL_TEST_MACHINE", NODE_IP)  # this machine, as pods reach it
NODE_ADDRESS = os.environ.get("QUEUE_EVAL_TEST_NODE", NODE_IP)  # the node, as this machine and pods reach it
REDIS_FOLDER = "redis"  # on the store's volume
REDIS_URL = f"redis://{NODE_ADDRESS}:{REDIS_PORT}/0"
USER_ID = 10001
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
PROGRAM = "/opt/program"  # where the image keeps queue_eval
LEASE_S = 3.0
