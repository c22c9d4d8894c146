"""Networks of libraries, by `timm:NAME` or `torchvision:NAME`: random weights, no download."""

from torch import nn

from denature.core.errors import ConfigError, MissingExtra


def create(library: str, name: str, *, classes: int, channels: int, image_size: int) -> nn.Module:
    """A library's network for images of this shape.

    Raises:
        ConfigError: the library knows no such network, or cannot make it for this shape.
        MissingExtra: the library is not installed.
    """
    make = {"timm": _timm, "torchvision": _torchvision}[library]
    try:
        return make(name, classes, channels, image_size)
    except ImportError:
        raise MissingExtra(library, library, f"The network {library}:{name}") from None
    except ConfigError:
        raise
    except Exception as error:  # a library may raise anything
        raise ConfigError(
            f"{library} cannot make {name!r} for {classes} classes and {channels} channels of "
            f"{image_size} pixels a side: {error}."
        ) from error


def _timm(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    import timm

    shape = {"num_classes": classes, "in_chans": channels}
    network: nn.Module
    try:  # transformers must be told the size; convolutional networks must not
        network = timm.create_model(name, pretrained=False, img_size=image_size, **shape)
    except TypeError:
        network = timm.create_model(name, pretrained=False, **shape)
    return network


def _torchvision(name: str, classes: int, channels: int, image_size: int) -> nn.Module:
    import torchvision

    if channels != 3:
        raise ConfigError(f"torchvision:{name} takes colour images only, these have one channel.")
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
    return network
