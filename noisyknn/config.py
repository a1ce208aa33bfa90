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
from typing import Literal, Union, get_args, get_origin, get_type_hints

from noisyknn.errors import UsageError, first_ten

Device = str
LossName = Literal["ce", "sce"]
Precision = Literal["auto", "fp32", "bf16"]
SelectorName = Literal["loss", "o2u"]
PolicyName = Literal["careful", "paper"]
PresetName = Literal["auto", "mnist", "cifar10", "cifar100", "clothing1m"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run's settings. The defaults are the paper's Section 4.2 for CIFAR-10."""

    method: str = "selknn"
    """How labels are corrected: a name of `noisyknn.methods.spec.METHODS`."""
    policy: PolicyName = "paper"
    """Which corrections are made: ``careful``, those that are likely right, or ``paper``, all, as in Algorithm 3."""
    min_confidence: float = 0.4
    """Probability of being right that a correction must have under the careful policy."""
    folds: int = 4
    """Parts that the samples are dealt into for crossfit; each episode judges one."""

    backbone: str = "preact_resnet32"
    """The network: cnn5, cnn8, preact_resnet18, preact_resnet32, preact_resnet56 or a torchvision classifier's name."""
    width: float = 1.0
    """Factor on the channels of noisyknn's own backbones."""
    weights: str | None = None
    """What a backbone starts from: nothing, ``DEFAULT`` (torchvision's download) or a .safetensors file."""
    layer: str | None = None
    """The stage whose pooled output is the feature vector; the last convolutional stage if not given."""

    image_size: int = 32
    """Height and width in pixels that the network sees."""
    store_size: int | None = None
    """Height and width in pixels that images are stored at, if larger than ``image_size`` (room for cropping)."""
    progressive: bool = False
    """Whether an episode begins with images of half the size, then three quarters, which takes less time per epoch."""
    fit: Literal["squash", "crop"] = "squash"
    """How an oblong image becomes square: squeezed whole, or the centre cut out."""

    crop_padding: int = 4
    """Pixels by which an image is padded (by reflection) before a crop of ``image_size`` is cut out at random."""
    flip: bool = True
    """Whether images are mirrored at random; wrong for characters."""
    rotation: float = 10.0
    """Largest random rotation, in degrees."""
    translation: float = 0.1
    """Largest random shift of the affine map, as a share of the image size."""
    jitter: float = 0.2
    """Strength of random brightness, contrast and saturation: factors from 1 - jitter to 1 + jitter."""

    episodes: int = 10
    """Rounds of training and correcting (Algorithm 1)."""
    epochs: int = 120
    """Passes over the data in each episode; crossfit, which leaves a fold out, sees as many images in more passes."""
    batch_size: int = 512
    """Images per step of training."""
    optimizer: Literal["adam", "sgd", "muon"] = "adam"
    """Adam, SGD with Nesterov momentum 0.9, or Muon (Jordan et al. 2024), whose rate is the angle of a step."""
    lr: float = 1e-3
    """Initial (step schedule) or largest (one-cycle) learning rate."""
    weight_decay: float = 1e-4
    """L2 penalty of the optimiser."""
    schedule: Literal["step", "one-cycle"] = "step"
    """``step`` divides the rate by 10 at each of ``drops``; ``one-cycle`` warms up over a quarter and falls to 0."""
    drops: tuple[int, ...] = (60, 90)
    """Epochs at which the step schedule divides the learning rate by 10."""

    loss: LossName = "sce"
    """Cross-entropy, or symmetric cross-entropy (Wang et al. 2019)."""
    alpha: float = 0.1
    """Weight of cross-entropy in the symmetric loss."""
    beta: float = 1.0
    """Weight of reverse cross-entropy in the symmetric loss."""
    log_zero: float = -9.21
    """A, what log 0 is taken as in reverse cross-entropy: the official code's -9.21 (its paper's text says -4)."""
    label_smoothing: float = 0.0
    """Share of a label's weight spread over all classes, in the cross-entropy part."""

    gamma: float = 1.0
    """Weight of the loss on the given labels in the first episode (Eq. 7)."""
    gamma_decay: float = 1.2
    """What gamma is divided by after each episode."""
    k: int = 100
    """Neighbours that vote."""
    reference_start: float = 0.2
    """M in the first episode: the share of each class that votes, those of smallest cumulative loss (Eqs. 5 and 6)."""
    reference_step: float = 0.1
    """What M grows by after each episode, until 1."""
    references_per_class: int | None = None
    """A fixed number of references per class instead of the share M, as for Clothing1M."""
    selector: SelectorName = "loss"
    """Whose loss tells references: ``loss`` of the episode (Eqs. 5 and 6), or ``o2u``, that of a cycle of 10 further
    epochs in which the rate falls to a tenth (O2U-Net, Huang et al. 2019)."""
    prior_weight: float = 1.2
    """α of Joint Optimization: weight of the loss that keeps classes of equal size."""
    entropy_weight: float = 0.8
    """β of Joint Optimization and of PENCIL: weight of the loss that makes the network sure."""
    compatibility_weight: float = 0.1
    """α of PENCIL: weight of the loss that keeps learnt labels near the given ones."""
    label_rate: float = 600.0
    """λ of PENCIL: learning rate of the labels."""
    later_rate: float = 1.0
    """Rate that the last stage of Joint Optimization or PENCIL begins with, as a multiple of ``lr``."""
    search: Literal["auto", "torch", "faiss"] = "auto"
    """k-NN backend; ``auto`` takes faiss on a CPU where it is installed, else torch."""

    device: Device = "auto"
    """``auto`` (the GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    precision: Precision = "auto"
    """``bf16`` autocast or ``fp32``; ``auto`` takes bf16 where the device computes it natively. What
    torch lets a GPU do in TF32, convolutions by default, is done so in ``fp32`` too."""
    seed: int = 0
    """Seed of everything random."""

    @property
    def network(self) -> str:
        """The backbone with its width, in words."""
        return self.backbone + (f" of width {self.width:g}" if self.width != 1 else "")

    def __post_init__(self) -> None:
        """Check every value, from wherever it came; raises UsageError naming the option."""
        for name, hint in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _checked(f"`{name}`", getattr(self, name), hint))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if number is not None and not low <= number <= high:
                    limits = " to ".join(f"{limit:.12g}" for limit in (low, high))
                    raise UsageError(f"`{name}` {number} is out of range ({limits})")
        if self.store_size is not None and self.store_size < self.image_size:
            raise UsageError(
                f"`image_size` {self.image_size} is larger than `store_size` {self.store_size}; give a smaller one "
                "or store larger images"
            )
        if self.loss == "sce" and self.alpha == self.beta == 0:
            raise UsageError("`alpha` 0 and `beta` 0 leave nothing to learn from; give one of them a weight")


_HUGE = 1e9
_LARGEST = sys.float_info.max
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("min_confidence", 0, 1),
    ("folds", 2, 100),
    ("width", 0.05, 64),
    ("image_size", 4, 2048),
    ("store_size", 4, 4096),
    ("crop_padding", 0, 256),
    ("rotation", 0, 180),
    ("translation", 0, 1),
    ("jitter", 0, 1),
    ("episodes", 1, 1000),
    ("epochs", 1, 100_000),
    ("batch_size", 2, 1_000_000),
    ("lr", 1e-9, 1000),
    ("weight_decay", 0, 10),
    ("drops", 1, 100_000),
    ("alpha", 0, _HUGE),
    ("beta", 0, _HUGE),
    ("log_zero", -1000, 0),
    ("label_smoothing", 0, 0.9),
    ("gamma", 0, 1),
    ("gamma_decay", 1, _HUGE),
    ("k", 1, 1_000_000),
    ("reference_start", 0.001, 1),
    ("reference_step", 0, 1),
    ("references_per_class", 1, _HUGE),
    ("prior_weight", 0, _HUGE),
    ("entropy_weight", 0, _HUGE),
    ("compatibility_weight", 0, _HUGE),
    ("label_rate", 0, _HUGE),
    ("later_rate", 1e-6, 1e6),
    ("seed", 0, 2**32 - 1),
)


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
