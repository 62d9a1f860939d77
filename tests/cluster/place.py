"""Where the tests' cluster keeps what."""

from pathlib import Path

NAMESPACE = "queue-eval-test"
STORE = Path("/tmp/queue-eval-cluster-store")  # a hostPath, which must belong to the pods' user
REDIS_PORT = 16379
REDIS_URL = f"redis://127.0.0.1:{REDIS_PORT}/0"
USER_ID = 10001
PROGRAM = "/opt/program"  # where the image keeps queue_eval
LEASE_S = 3.0
LOCAL_POD = {"hostNetwork": True, "dnsPolicy": "Default"}
