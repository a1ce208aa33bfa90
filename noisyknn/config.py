"""Every setting of a run with its bounds, and how a file or a mapping becomes a configuration.

Symbols as in the paper: M reference fraction, k neighbours, gamma weight of the loss on the given labels.
"""

import dataclasses
import difflib
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from noisyknn.errors import UsageError, first_ten

LossName = Literal["ce", "sce"]
Precision = Literal["auto", "fp32", "bf16"]
SelectorName = Literal["loss", "o2u"]
SearchName = Literal["auto", "torch", "faiss"]
PolicyName = Literal["careful", "paper"]
PresetName = Literal["auto", "mnist", "cifar10", "cifar100", "clothing1m"]


HUGE = 1e9


class Between(NamedTuple):
    """Inclusive bounds of a setting."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of a run. The defaults are those of the paper's Section 4.2 for CIFAR-10."""

    method: str = "selknn"
    """Method of correction: a name in `noisyknn.methods.spec.METHODS`."""
    policy: PolicyName = "paper"
    """Corrections to apply: ``careful``, only those that are probably right; ``paper``, all, as in Algorithm 3."""
    min_confidence: Annotated[float, Between(0, 1)] = 0.4
    """Smallest confidence of a correction under the careful policy."""
    folds: Annotated[int, Between(2, 100)] = 4
    """Parts that crossfit splits the samples into; each episode judges one."""

    backbone: str = "preact_resnet32"
    """The network: cnn5, cnn8, preact_resnet18, preact_resnet32, preact_resnet56 or a torchvision classifier's name."""
    width: Annotated[float, Between(0.05, 64)] = 1.0
    """Factor on the channels of noisyknn's own backbones."""
    weights: str | None = None
    """Initial weights: none, ``DEFAULT`` (torchvision downloads them) or a .safetensors file."""
    layer: str | None = None
    """The stage whose pooled output is the feature vector; by default the last convolutional stage."""

    image_size: Annotated[int, Between(4, 2048)] = 32
    """Height and width of the network's input, in pixels."""
    store_size: Annotated[int, Between(4, 4096)] | None = None
    """Height and width of stored images, in pixels, if larger than ``image_size`` (room for cropping)."""
    progressive: bool = False
    """Whether an episode starts with images of half the size, then three quarters, so that its epochs are faster."""
    fit: Literal["squash", "crop"] = "squash"
    """How an oblong image becomes square: squeezed whole, or cropped to its centre."""

    crop_padding: Annotated[int, Between(0, 256)] = 4
    """Pixels of reflection padding before a random crop of ``image_size``."""
    flip: bool = True
    """Whether to mirror images at random; wrong for characters."""
    rotation: Annotated[float, Between(0, 180)] = 10.0
    """Largest random rotation, in degrees."""
    translation: Annotated[float, Between(0, 1)] = 0.1
    """Largest random shift of the affine map, as a share of the image size."""
    jitter: Annotated[float, Between(0, 1)] = 0.2
    """Strength of random brightness, contrast and saturation: factors from 1 - jitter to 1 + jitter."""

    episodes: Annotated[int, Between(1, 1000)] = 10
    """Rounds of training and correcting (Algorithm 1)."""
    epochs: Annotated[int, Between(1, 100_000)] = 120
    """Passes over the data in each episode; crossfit, which holds out a fold, makes more passes over as many images."""
    batch_size: Annotated[int, Between(2, 1_000_000)] = 512
    """Images per step of training."""
    optimizer: Literal["adam", "sgd", "muon"] = "adam"
    """Adam, SGD with Nesterov momentum 0.9, or Muon (Jordan et al. 2024), where the rate is the angle of a step."""
    lr: Annotated[float, Between(1e-9, 1000)] = 1e-3
    """Initial (step schedule) or largest (one-cycle) learning rate."""
    weight_decay: Annotated[float, Between(0, 10)] = 1e-4
    """L2 penalty of the optimiser."""
    schedule: Literal["step", "one-cycle"] = "step"
    """``step`` divides the rate by 10 at each of ``drops``; ``one-cycle`` warms up for a quarter, then falls to 0."""
    drops: tuple[Annotated[int, Between(1, 100_000)], ...] = (60, 90)
    """Epochs at which the step schedule divides the learning rate by 10."""

    loss: LossName = "sce"
    """Cross-entropy, or symmetric cross-entropy (Wang et al. 2019)."""
    alpha: Annotated[float, Between(0, HUGE)] = 0.1
    """Weight of cross-entropy in the symmetric loss."""
    beta: Annotated[float, Between(0, HUGE)] = 1.0
    """Weight of reverse cross-entropy in the symmetric loss."""
    log_zero: Annotated[float, Between(-1000, 0)] = -9.21
    """A, the value of log 0 in reverse cross-entropy: -9.21 as in the official code (the text of its paper says -4)."""
    label_smoothing: Annotated[float, Between(0, 0.9)] = 0.0
    """Share of a label's weight that cross-entropy spreads over all classes."""

    gamma: Annotated[float, Between(0, 1)] = 1.0
    """Weight of the loss on the given labels in the first episode (Eq. 7)."""
    gamma_decay: Annotated[float, Between(1, HUGE)] = 1.2
    """Divisor of gamma after each episode."""
    k: Annotated[int, Between(1, 1_000_000)] = 100
    """Neighbours that vote."""
    reference_start: Annotated[float, Between(0.001, 1)] = 0.2
    """M in the first episode: the share of each class that votes, smallest cumulative loss first (Eqs. 5 and 6)."""
    reference_step: Annotated[float, Between(0, 1)] = 0.1
    """Increase of M after each episode, up to 1."""
    references_per_class: Annotated[int, Between(1, HUGE)] | None = None
    """Fixed number of references per class in place of the share M, as for Clothing1M."""
    selector: SelectorName = "loss"
    """The loss that selects references: ``loss``, that of the episode (Eqs. 5 and 6), or ``o2u``, that of a cycle of 10
    further epochs in which the rate falls to a tenth (O2U-Net, Huang et al. 2019)."""
    prior_weight: Annotated[float, Between(0, HUGE)] = 1.2
    """α of Joint Optimization: weight of the loss that keeps classes equally large."""
    entropy_weight: Annotated[float, Between(0, HUGE)] = 0.8
    """β of Joint Optimization and of PENCIL: weight of the loss that makes predictions confident."""
    compatibility_weight: Annotated[float, Between(0, HUGE)] = 0.1
    """α of PENCIL: weight of the loss that keeps the learned labels near the given ones."""
    label_rate: Annotated[float, Between(0, HUGE)] = 600.0
    """λ of PENCIL: learning rate of the labels."""
    later_rate: Annotated[float, Between(1e-6, 1e6)] = 1.0
    """Initial rate of the last stage of Joint Optimization and PENCIL, as a multiple of ``lr``."""
    search: SearchName = "auto"
    """k-NN backend; ``auto`` uses faiss on a CPU if it is installed, else torch."""

    device: str = "auto"
    """``auto`` (the GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Precision = "auto"
    """``bf16`` autocast or ``fp32``; ``auto`` uses bf16 if the device supports it natively. In ``fp32``, a GPU still
    computes in TF32 what torch allows it to: by default, convolutions."""
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    """Seed of all random numbers."""

    @property
    def network(self) -> str:
        """The backbone with its width, in words."""
        return self.backbone + (f" of width {self.width:g}" if self.width != 1 else "")

    def __post_init__(self) -> None:
        """Check every value, whatever its source; raises UsageError naming the setting."""
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, _checked(f"`{name}`", getattr(self, name), hint))
        if self.store_size is not None and self.store_size < self.image_size:
            raise UsageError(
                f"`image_size` {self.image_size} is larger than `store_size` {self.store_size}; reduce the first or "
                "raise the second"
            )
        if self.loss == "sce" and self.alpha == self.beta == 0:
            raise UsageError("`alpha` and `beta` are both 0, so the loss is 0; raise one of them")


_LARGEST = sys.float_info.max


def read_config(path: Path) -> dict[str, object]:
    """Unchecked settings from a TOML file of ``name = value`` lines; raises UsageError for any other file."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # ignore a byte order mark
    except OSError as error:
        raise UsageError(f"`config` {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"`config` {path} is not valid TOML: {error}") from error
    settings: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            raise UsageError(f"`config` {path}: settings have no sections; remove [{name}]")
        if name.replace("-", "_") in settings:
            raise UsageError(f"`config` {path} sets {name} twice, once with - and once with _; remove one")
        settings[name.replace("-", "_")] = value
    return settings


def make_config(settings: Mapping[str, object]) -> Config:
    """A Config from names and values; raises UsageError for unknown names, wrong types and values out of range."""
    known = [field.name for field in dataclasses.fields(Config)]
    if unknown := [name for name in settings if name not in known]:
        near = [close for name in unknown for close in difflib.get_close_matches(name.lower(), known, n=1)]
        hint = f"did you mean {first_ten(near)}?" if near else f"choose from {', '.join(known)}"
        raise UsageError(f"unknown setting {first_ten(unknown)}; {hint}")
    return Config(**settings)  # type: ignore[arg-type]  # Config checks each value against its field


def _checked(option: str, value: object, hint: object) -> object:
    """`value` as the type in its field's `hint`: whole numbers count as floats, lists as tuples.

    Raises UsageError for anything else. True, False, nan and inf are not numbers.
    """
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        inner, bounds = arguments
        number = _checked(option, value, inner)
        if not bounds.low <= number <= bounds.high:
            limits = " to ".join(f"{limit:.12g}" for limit in (bounds.low, bounds.high))
            raise UsageError(f"{option} {number} is out of range ({limits})")
        return number
    if kind in (Union, UnionType):  # the only unions are X | None
        (inner,) = (argument for argument in arguments if argument is not NoneType)
        return None if value is None else _checked(option, value, inner)
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_checked(option, item, arguments[0]) for item in value)
    if kind is Literal and isinstance(value, str) and value in arguments:
        return value
    if isinstance(value, bool):
        if hint is bool:
            return value
    elif hint is str and isinstance(value, str):
        return value
    elif hint is int and isinstance(value, Integral):
        return int(value)
    elif hint is float and isinstance(value, Real):
        number = int(value) if isinstance(value, Integral) else float(value)  # some integers are too large for a float
        if -_LARGEST <= number <= _LARGEST:  # False for nan
            return float(number)
    raise UsageError(f"{option} {value!r} is not {_in_words(hint)}")


def _in_words(hint: object) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    words = {bool: "true or false", str: "text", int: "a whole number", float: "a finite number"}
    return words[hint] if isinstance(hint, type) and hint in words else "a list of whole numbers"
