"""Runs torchrun and ends as its processes did, without a traceback: what they said is enough.

`python -m deer_ros.training.launch ARGUMENTS`, which are torchrun's.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

FAILED, INTERRUPTED = 1, 130
"""Exit codes, as `deer` has them."""


def main(arguments: Sequence[str]) -> int:
    """Run until all processes have ended; the exit code of the first that failed, or 0."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import parse_args, run
    except KeyboardInterrupt:
        return INTERRUPTED
    try:
        run(parse_args(arguments))
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else FAILED
    except (SignalException, KeyboardInterrupt):
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
