"""Where every process begins: the command, `python -m queue_eval`, and the first process of our containers."""

import os
import signal

# Linux spares the first process of a container what it does not handle: a SIGTERM that comes before would be lost, and the pod killed a grace
# period later. The image starts us with SIGTERM blocked, so that one which comes before this line waits for it. At once, and not by an exception:
# imports swallow those. Nothing is held yet; verbs that hold something put their own handler in place.
signal.signal(signal.SIGTERM, lambda *_: os._exit(os.EX_TEMPFAIL))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

from queue_eval.cli.main import main

if __name__ == "__main__":
    main()
