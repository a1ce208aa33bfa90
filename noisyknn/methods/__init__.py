"""Methods of label correction, one file each; a new one is a file, its tests and a line below."""

from collections.abc import Mapping

from noisyknn.methods.base import Method
from noisyknn.methods.ce import ce
from noisyknn.methods.crossfit import crossfit
from noisyknn.methods.deep_knn import deep_knn
from noisyknn.methods.iterknn import iterknn
from noisyknn.methods.joint_optimization import joint_optimization
from noisyknn.methods.pencil import pencil
from noisyknn.methods.selknn import selknn
from noisyknn.methods.sl import sl

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
