"""What the exit statuses of the processes of one run say together: finished, start again, or stop."""

import signal
from collections.abc import Sequence

from seqjax.train.outcome import Diverged, Preempted

RETRY = Preempted.exit_code
FINAL = (2, Diverged.exit_code)
INTERRUPTED = 130


def together(ended: Sequence[int], stopped: Sequence[int] = ()) -> int:
    """The status of the run, for a watcher to act on.

    One process that fails takes the others with it, by an abort of jax or by the launcher, so what the rest says is
    noise, but for the two statuses that no accident makes.

    Args:
      ended: statuses in the order in which the processes ended; -n for a death by signal n, as subprocess has it.
      stopped: those of the processes that the launcher ended afterwards.

    Returns:
      2 or 3 if any process said so, since starting again would repeat it; 75 if one that ended by itself said so, or
      if the first to fail died of a signal; otherwise the status of the first to fail, 0 if none did.
    """
    for status in (*ended, *stopped):
        if status in FINAL:
            return status
    if RETRY in ended:
        return RETRY
    first = next((status for status in (*ended, *stopped) if status), 0)
    if first == -signal.SIGINT:
        return INTERRUPTED
    return RETRY if first < 0 else first


def described(status: int) -> str:
    """In words: "ended with status 2", "was killed by SIGKILL"."""
    if status >= 0:
        return f"ended with status {status}"
    number = -status
    known = number in {item.value for item in signal.Signals}
    return f"was killed by {signal.Signals(number).name if known else f'signal {number}'}"
