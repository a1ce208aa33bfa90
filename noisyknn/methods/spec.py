"""The specification of a method, and the registry of all methods.

A method is one file. Its `SPEC` says how it runs and ends, which settings it uses, who votes, and how to describe it.
To add one, write the file and its test, and add a line to METHODS: nothing else names a method.
"""

import difflib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from noisyknn.config import Config
from noisyknn.errors import UsageError

if TYPE_CHECKING:  # the command line reads the registry, and torch takes seconds to load
    import numpy as np
    import numpy.typing as npt

    from noisyknn.methods.algorithm1 import Episode, Task
    from noisyknn.models.backbone import Backbone

METHODS: dict[str, tuple[str, str]] = {
    "crossfit": ("noisyknn.methods.crossfit", "networks judge only labels that they have not seen"),
    "selknn": ("noisyknn.methods.selknn", "labels of small loss vote (the paper's)"),
    "iterknn": ("noisyknn.methods.iterknn", "all labels vote (the paper's)"),
    "ce": ("noisyknn.methods.baselines.ce", "one network decides, trained with cross-entropy"),
    "sl": ("noisyknn.methods.baselines.sl", "one network decides, trained with the symmetric loss"),
    "joint-optimization": ("noisyknn.methods.baselines.joint_optimization", "labels are averaged predictions"),
    "pencil": ("noisyknn.methods.baselines.pencil", "labels are learnt by gradient steps"),
    "deep-knn": ("noisyknn.methods.baselines.deep_knn", "a filter that corrects nothing"),
}
"""Module and one-line description of every method; ``auto`` takes the first."""

VOTE_SETTINGS = frozenset({"k", "search", "layer"})
LOSS_SETTINGS = frozenset({"loss", "alpha", "beta", "log_zero", "label_smoothing"})
SCHEDULE_SETTINGS = frozenset({"schedule", "drops"})
COMMON_SETTINGS = LOSS_SETTINGS | SCHEDULE_SETTINGS | {"policy"}
"""Settings that most methods use, but not all."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What ``auto`` knows about the data when it chooses settings."""

    rows: int
    """Labelled rows."""
    classes: int
    pixels: int
    """Height and width of the network's input."""
    grey: bool
    passes: float
    """Images of that size that an episode may train on within the time budget."""


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One method of label correction."""

    run: "Callable[[Task, Episode | None], Iterator[Episode]]"
    """Yields each episode as it ends; continues after the given one when a run resumes."""
    settings: frozenset[str]
    """The settings that it uses, among those that not all methods use."""
    words: Callable[[Config], str]
    """The vote, for the description of a run: ``k = 100, all labels vote``; empty if there is no vote."""
    voters: "Callable[[Config, npt.NDArray[np.int64]], int] | None" = None
    """Number of voters in the first episode, from the labelled rows of each class (C,); None without a k-NN vote."""
    defaults: Mapping[str, object] = field(default_factory=dict)
    """Settings that override those of every preset."""
    clothing1m: Mapping[str, object] = field(default_factory=dict)
    """Settings that override those of the preset ``clothing1m``."""
    auto: Callable[[Facts], Mapping[str, object]] = lambda _: {}
    """Settings that override those of ``auto``."""
    objective: Callable[[Config], str] | None = None
    """Names the method's own loss; None if it trains with the configured loss and schedule."""
    unused: Callable[[Config], frozenset[str]] = lambda _: frozenset()
    """Those of `settings` that have no effect beside the others."""
    check: Callable[[Config], None] = lambda _: None
    """Raises UsageError for a configuration that the method cannot run."""
    final_network: "Callable[[Task, Episode], Backbone] | None" = None
    """Makes the final classifier; None if Algorithm 1, line 13, does or the last episode has one."""
    held_out: bool = False
    """Whether no network judges a label that it was trained on, so that confidence is calibrated."""


DEFAULT = next(iter(METHODS))


def find_method(name: str) -> MethodSpec:
    """The method with this name; raises UsageError if there is none."""
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(METHODS)}"
        raise UsageError(f"there is no `method` {name!r}; {hint}")
    spec = importlib.import_module(METHODS[name][0]).SPEC
    assert isinstance(spec, MethodSpec)
    return spec


def unused_settings(config: Config) -> frozenset[str]:
    """Names of settings that have no effect beside the others."""
    spec = find_method(config.method)
    found = frozenset[str]().union(*(find_method(name).settings for name in METHODS)) - spec.settings
    found |= spec.unused(config)
    if config.policy == "paper":
        found |= {"min_confidence"}
    if config.schedule == "one-cycle":
        found |= {"drops"}
    if config.loss == "ce":
        found |= {"alpha", "beta", "log_zero"}
    return found
