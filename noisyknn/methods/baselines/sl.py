"""SL: like CE, but with the symmetric loss, which is more robust to wrong labels.

Source: Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels (2019):
α · CE + β · RCE (`noisyknn.training.losses`), α and β by data set. Deviation: log 0 is -9.21, as in the official code,
not -4, as in the text (setting ``log_zero``).
"""

from noisyknn.methods.baselines.ce import ONE_EPISODE, one_network
from noisyknn.methods.spec import COMMON_SETTINGS, MethodSpec

SPEC = MethodSpec(
    run=one_network,
    settings=COMMON_SETTINGS - {"loss"},
    words=lambda _: "",
    defaults={**ONE_EPISODE, "loss": "sce"},
)
