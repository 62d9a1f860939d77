"""Where every process begins: the command, `python -m queue_eval`, and the first process of our containers."""

import sys

from queue_eval.core.errors import ImportFailedError
from queue_eval.early_signals import exit_on_sigterm
from queue_eval.standard_streams import open_closed

# Linux spares the first process of a container what it does not handle: a SIGTERM that comes before would be lost, and
# the pod killed a grace
# period later. The image starts us with SIGTERM blocked, so that one which comes before this line waits for it.
exit_on_sigterm()
open_closed()

try:
    from queue_eval.cli.main import main
except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, no verb can run
    sys.stderr.write(f"queue-eval: {ImportFailedError(error)}\n")
    sys.exit(ImportFailedError.exit_code)

if __name__ == "__main__":
    main()
