"""SL: like CE, but by the symmetric loss, which wrong labels mislead less.

Source: Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels (2019):
α · CE + β · RCE (`noisyknn.training.losses`), α and β by data set. Deviation: log 0 is taken as -9.21, as in its
official code, where its text says -4 (setting ``log_zero``).
"""

from collections.abc import Iterator

from noisyknn.methods.base import Episode, Task, one_network


def sl(task: Task, last: Episode | None) -> Iterator[Episode]:
    """One network on the given labels; the configuration's loss is the symmetric one."""
    return one_network(task, last)
