"""Methods of label correction, one file each; a new one is a file, its tests and a line below."""

from collections.abc import Mapping

from noisyknn.methods.base import Method
from noisyknn.methods.crossfit import crossfit
from noisyknn.methods.iterknn import iterknn
from noisyknn.methods.selknn import selknn

METHODS: Mapping[str, Method] = {"crossfit": crossfit, "iterknn": iterknn, "selknn": selknn}
