"""Where the tests' cluster keeps what."""

import os
from pathlib import Path

NAMESPACE = "queue-eval-test"
STORE = Path("/tmp/queue-eval-cluster-store")  # a hostPath, which must belong to the pods' user
REDIS_PORT = 16379
# The tests' own cluster shares this machine's network. kind's node is a container of this machine, with a network beside it:
MACHINE = os.environ.get("QUEUE_EVAL_TEST_MACHINE", "127.0.0.1")  # this machine, as pods reach it
NODE_ADDRESS = os.environ.get("QUEUE_EVAL_TEST_NODE", "127.0.0.1")  # the node, as this machine and pods reach it
REDIS_URL = f"redis://{NODE_ADDRESS}:{REDIS_PORT}/0"
USER_ID = 10001
PROGRAM = "/opt/program"  # where the image keeps queue_eval
LEASE_S = 3.0
LOCAL_POD = {"hostNetwork": True, "dnsPolicy": "Default"}
