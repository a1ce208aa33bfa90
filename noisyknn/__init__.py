"""noisyknn: correct wrong labels in image data sets with KNN-enhanced deep learning."""

from typing import TYPE_CHECKING, Any

from noisyknn.version import __version__

if TYPE_CHECKING:
    from noisyknn.api import clean as clean
    from noisyknn.models.model_file import load_model as load_model
    from noisyknn.output import Result as Result

__all__ = ["Result", "__version__", "clean", "load_model"]


def __getattr__(name: str) -> Any:
    """Import the library, and torch with it, at first use."""
    if name == "clean":
        from noisyknn.api import clean

        return clean
    if name == "load_model":
        from noisyknn.models.model_file import load_model

        return load_model
    if name == "Result":
        from noisyknn.output import Result

        return Result
    raise AttributeError(f"module 'noisyknn' has no attribute {name!r}")
