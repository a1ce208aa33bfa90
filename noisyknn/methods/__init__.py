"""Methods of label correction, one file each; a new one is a file, its tests and a line below."""

from collections.abc import Callable, Mapping

from noisyknn.methods.base import Episode, Method, Task
from noisyknn.methods.ce import ce
from noisyknn.methods.crossfit import crossfit
from noisyknn.methods.deep_knn import deep_knn, learn_what_is_left
from noisyknn.methods.iterknn import iterknn
from noisyknn.methods.joint_optimization import joint_optimization, learn_soft_labels
from noisyknn.methods.pencil import pencil
from noisyknn.methods.selknn import selknn
from noisyknn.methods.sl import sl
from noisyknn.training.trainer import Trained

METHODS: Mapping[str, Method] = {
    "crossfit": crossfit,
    "iterknn": iterknn,
    "selknn": selknn,
    "ce": ce,
    "sl": sl,
    "joint-optimization": joint_optimization,
    "pencil": pencil,
    "deep-knn": deep_knn,
}
FINAL_TRAININGS: Mapping[str, Callable[[Task, Episode], Trained]] = {
    "joint-optimization": learn_soft_labels,
    "deep-knn": learn_what_is_left,
}
"""How the network is trained that a method ends with, where one is wanted and not simply on the corrected labels
(Algorithm 1, line 13)."""
