"""`python -m queue_eval`, and the first process of our containers."""

import os
import signal
import sys

if os.getpid() == 1:
    # Linux spares the first process what it does not handle: a SIGTERM that comes while modules are still being imported would be lost, and
    # the pod killed a grace period later. Nothing is held yet; verbs that hold something put their own handler in place.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))

from queue_eval.cli.main import main

main()
