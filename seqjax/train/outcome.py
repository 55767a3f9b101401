"""How a run may end short of its last step, each with the exit status that tells a launcher what to do next.

0 finished; 2 the input cannot be used (`seqjax.errors.InputError`), running again won't help; 3 `Diverged`;
75 `Preempted`; 130 interrupted from the keyboard.
"""

from typing import ClassVar


class Diverged(RuntimeError):
    """The loss is no longer a finite number: running again repeats it, so a launcher should not restart.

    The message names the step and the metrics that are not finite; the last good checkpoint stays.
    """

    exit_code: ClassVar[int] = 3


class Preempted(RuntimeError):
    """The machine was asked back, and the state was saved: running the same command again continues.

    The status is `EX_TEMPFAIL` of sysexits.h (try again later), which a launcher may take as its sign to
    restart.
    """

    exit_code: ClassVar[int] = 75
