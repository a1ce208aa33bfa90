"""CE: a network learns the labels as they are given, by cross-entropy, and each label becomes what it says.

The first baseline of Kong et al. (Section 4.2); its test accuracy is that of this network after the last epoch.
Schedule, optimiser and augmentation are those of the preset, as the paper has them for all methods. Deviation: where
training mirrors images, labels are what the network says of an image and its mirror image on average.
"""

from collections.abc import Iterator

from noisyknn.methods.base import Episode, Task, one_network


def ce(task: Task, last: Episode | None) -> Iterator[Episode]:
    """One network on the given labels; the configuration's loss is cross-entropy."""
    return one_network(task, last)
