"""Every setting of a run, with its bounds, and how a file or a mapping of settings becomes a configuration.

Symbols as in the paper: M reference fraction, k neighbours, gamma weight of the loss on the given labels.
"""

import dataclasses
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
    """Bounds of a setting, which may have either value."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run's settings. The defaults are the paper's Section 4.2 for CIFAR-10."""

    method: str = "selknn"
    """How labels are corrected: a name of `noisyknn.methods.spec.METHODS`."""
    policy: PolicyName = "paper"
    """Which corrections are made: ``careful``, those that are likely right, or ``paper``, all, as in Algorithm 3."""
    min_confidence: Annotated[float, Between(0, 1)] = 0.4
    """Probability of being right that a correction must have under the careful policy."""
    folds: Annotated[int, Between(2, 100)] = 4
    """Parts that the samples are dealt into for crossfit; each episode judges one."""

    backbone: str = "preact_resnet32"
    """The network: cnn5, cnn8, preact_resnet18, preact_resnet32, preact_resnet56 or a torchvision classifier's name."""
    width: Annotated[float, Between(0.05, 64)] = 1.0
    """Factor on the channels of noisyknn's own backbones."""
    weights: str | None = None
    """What a backbone starts from: nothing, ``DEFAULT`` (torchvision's download) or a .safetensors file."""
    layer: str | None = None
    """The stage whose pooled output is the feature vector; the last convolutional stage if not given."""

    image_size: Annotated[int, Between(4, 2048)] = 32
    """Height and width in pixels that the network sees."""
    store_size: Annotated[int, Between(4, 4096)] | None = None
    """Height and width in pixels that images are stored at, if larger than ``image_size`` (room for cropping)."""
    progressive: bool = False
    """Whether an episode begins with images of half the size, then three quarters, which takes less time per epoch."""
    fit: Literal["squash", "crop"] = "squash"
    """How an oblong image becomes square: squeezed whole, or the centre cut out."""

    crop_padding: Annotated[int, Between(0, 256)] = 4
    """Pixels by which an image is padded (by reflection) before a crop of ``image_size`` is cut out at random."""
    flip: bool = True
    """Whether images are mirrored at random; wrong for characters."""
    rotation: Annotated[float, Between(0, 180)] = 10.0
    """Largest random rotation, in degrees."""
    translation: Annotated[float, Between(0, 1)] = 0.1
    """Largest random shift of the affine map, as a share of the image size."""
    jitter: Annotated[float, Between(0, 1)] = 0.2
    """Strength of random brightness, contrast and saturation: factors from 1 - jitter to 1 + jitter."""

    episodes: Annotated[int, Between(1, 1000)] = 10
    """Rounds of training and correcting (Algorithm 1)."""
    epochs: Annotated[int, Between(1, 100_000)] = 120
    """Passes over the data in each episode; crossfit, which leaves a fold out, sees as many images in more passes."""
    batch_size: Annotated[int, Between(2, 1_000_000)] = 512
    """Images per step of training."""
    optimizer: Literal["adam", "sgd", "muon"] = "adam"
    """Adam, SGD with Nesterov momentum 0.9, or Muon (Jordan et al. 2024), whose rate is the angle of a step."""
    lr: Annotated[float, Between(1e-9, 1000)] = 1e-3
    """Initial (step schedule) or largest (one-cycle) learning rate."""
    weight_decay: Annotated[float, Between(0, 10)] = 1e-4
    """L2 penalty of the optimiser."""
    schedule: Literal["step", "one-cycle"] = "step"
    """``step`` divides the rate by 10 at each of ``drops``; ``one-cycle`` warms up over a quarter and falls to 0."""
    drops: tuple[Annotated[int, Between(1, 100_000)], ...] = (60, 90)
    """Epochs at which the step schedule divides the learning rate by 10."""

    loss: LossName = "sce"
    """Cross-entropy, or symmetric cross-entropy (Wang et al. 2019)."""
    alpha: Annotated[float, Between(0, HUGE)] = 0.1
    """Weight of cross-entropy in the symmetric loss."""
    beta: Annotated[float, Between(0, HUGE)] = 1.0
    """Weight of reverse cross-entropy in the symmetric loss."""
    log_zero: Annotated[float, Between(-1000, 0)] = -9.21
    """A, what log 0 is taken as in reverse cross-entropy: the official code's -9.21 (its paper's text says -4)."""
    label_smoothing: Annotated[float, Between(0, 0.9)] = 0.0
    """Share of a label's weight spread over all classes, in the cross-entropy part."""

    gamma: Annotated[float, Between(0, 1)] = 1.0
    """Weight of the loss on the given labels in the first episode (Eq. 7)."""
    gamma_decay: Annotated[float, Between(1, HUGE)] = 1.2
    """What gamma is divided by after each episode."""
    k: Annotated[int, Between(1, 1_000_000)] = 100
    """Neighbours that vote."""
    reference_start: Annotated[float, Between(0.001, 1)] = 0.2
    """M in the first episode: the share of each class that votes, those of smallest cumulative loss (Eqs. 5 and 6)."""
    reference_step: Annotated[float, Between(0, 1)] = 0.1
    """What M grows by after each episode, until 1."""
    references_per_class: Annotated[int, Between(1, HUGE)] | None = None
    """A fixed number of references per class instead of the share M, as for Clothing1M."""
    selector: SelectorName = "loss"
    """Whose loss tells references: ``loss`` of the episode (Eqs. 5 and 6), or ``o2u``, that of a cycle of 10 further
    epochs in which the rate falls to a tenth (O2U-Net, Huang et al. 2019)."""
    prior_weight: Annotated[float, Between(0, HUGE)] = 1.2
    """α of Joint Optimization: weight of the loss that keeps classes of equal size."""
    entropy_weight: Annotated[float, Between(0, HUGE)] = 0.8
    """β of Joint Optimization and of PENCIL: weight of the loss that makes the network sure."""
    compatibility_weight: Annotated[float, Between(0, HUGE)] = 0.1
    """α of PENCIL: weight of the loss that keeps learnt labels near the given ones."""
    label_rate: Annotated[float, Between(0, HUGE)] = 600.0
    """λ of PENCIL: learning rate of the labels."""
    later_rate: Annotated[float, Between(1e-6, 1e6)] = 1.0
    """Rate that the last stage of Joint Optimization or PENCIL begins with, as a multiple of ``lr``."""
    search: SearchName = "auto"
    """k-NN backend; ``auto`` takes faiss on a CPU where it is installed, else torch."""

    device: str = "auto"
    """``auto`` (the GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Precision = "auto"
    """``bf16`` autocast or ``fp32``; ``auto`` takes bf16 where the device computes it natively. What
    torch lets a GPU do in TF32, convolutions by default, is done so in ``fp32`` too."""
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    """Seed of everything random."""

    @property
    def network(self) -> str:
        """The backbone with its width, in words."""
        return self.backbone + (f" of width {self.width:g}" if self.width != 1 else "")

    def __post_init__(self) -> None:
        """Check every value, from wherever it came; raises UsageError naming the option."""
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, _checked(f"`{name}`", getattr(self, name), hint))
        if self.store_size is not None and self.store_size < self.image_size:
            raise UsageError(
                f"`image_size` {self.image_size} is larger than `store_size` {self.store_size}; give a smaller one "
                "or store larger images"
            )
        if self.loss == "sce" and self.alpha == self.beta == 0:
            raise UsageError("`alpha` 0 and `beta` 0 leave nothing to learn from; give one of them a weight")


_LARGEST = sys.float_info.max


def read_config(path: Path) -> dict[str, object]:
    """Settings from a TOML file, one ``name = value`` a line, unchecked; raises UsageError for what is no TOML."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # a byte order mark is no part of it
    except OSError as error:
        raise UsageError(f"`config` {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"`config` {path} is not valid TOML: {error}") from error
    settings: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            raise UsageError(f"`config` {path}: settings stand without a section; remove [{name}]")
        if name.replace("-", "_") in settings:
            raise UsageError(f"`config` {path} sets {name} twice, once with - and once with _")
        settings[name.replace("-", "_")] = value
    return settings


def make_config(settings: Mapping[str, object]) -> Config:
    """A Config from names and values; raises UsageError for unknown names, wrong types and values out of range."""
    known = [field.name for field in dataclasses.fields(Config)]
    if unknown := [name for name in settings if name not in known]:
        raise UsageError(f"there is no setting {first_ten(unknown)}; settings are {', '.join(known)}")
    return Config(**settings)  # type: ignore[arg-type]  # Config checks each value against its field


def _checked(option: str, value: object, hint: object) -> object:
    """`value` as the type that its field's `hint` names: whole numbers count as floats, lists as tuples.

    Raises UsageError for anything else. True and False are no numbers, and neither are nan and inf.
    """
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        inner, bounds = arguments
        number = _checked(option, value, inner)
        if not bounds.low <= number <= bounds.high:
            limits = " to ".join(f"{limit:.12g}" for limit in (bounds.low, bounds.high))
            raise UsageError(f"{option} {number} is out of range ({limits})")
        return number
    if kind in (Union, UnionType):  # the one union in use is X | None
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
        number = int(value) if isinstance(value, Integral) else float(value)  # some whole numbers are too large for one
        if -_LARGEST <= number <= _LARGEST:  # nan is not
            return float(number)
    raise UsageError(f"{option} {value!r} is not {_in_words(hint)}")


def _in_words(hint: object) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(get_args(hint))}"
    words = {bool: "true or false", str: "text", int: "a whole number", float: "a finite number"}
    return words[hint] if isinstance(hint, type) and hint in words else "a list of whole numbers"
