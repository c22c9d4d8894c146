"""The catalogue of networks: properties that every line of it has, and names that are not in it."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from denature.core.errors import ConfigError, MissingExtra
from denature.core.seeds import seeded
from denature.nets import NETS, create, parameter_count
from denature.nets.heads import head_of
from tests.networks import every_network

COUNTS = {
    "mlp": (1841162, 1887332, 1938632),
    "cnn": (357514, 369124, 382024),
    "resnetc20": (272282, 278132, 284632),
    "resnetc32": (466714, 472564, 479064),
    "resnetc44": (683162, 706292, 731992),
    "resnetc56": (868634, 891764, 917464),
    "resnetc110": (1703258, 1726388, 1752088),
    "resnet18": (11173962, 11220132, 11271432),
    "resnet34": (21282122, 21328292, 21379592),
    "resnet50": (23520842, 23705252, 23910152),
    "resnext29": (34426698, 34518948, 34621448),
    "mobilenetv2": (2254090, 2369380, 2497480),
    "shufflenetv2": (1268646, 1360896, 1463396),
    "densenet121": (6956298, 7048548, 7151048),
    "sepcnn": (178597, 190207, 203107),
    "papernot": (2425930, 2449060, 2474760),
}
"""At 3x32x32 for 10, 100 and 200 classes."""


def evaluated(
    name: str,
    *,
    channels: int = 3,
    size: int = 8,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> nn.Module:
    """A network of three classes in eval mode, with the same weights in every call.

    Its batch norms have seen noise: with the running statistics of a new network the signal of a
    deep one dies away.
    """
    with seeded(0, name):
        network = create(name, classes=3, channels=channels, image_size=size, mean=mean, std=std)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network.train()(torch.rand(max(2, 512 // size**2), channels, size, size))
        return network.eval()


def random_pixels(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_the_parameters_of_every_network_are_known() -> None:
    assert COUNTS.keys() == NETS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts_are_those_that_are_known(name: str) -> None:
    with torch.device("meta"):
        counts = tuple(parameter_count(create(name, classes=c)) for c in (10, 100, 200))
    assert counts == COUNTS[name]


@every_network
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3)])
def test_logits_of_images_of_its_shape_are_finite(name: str, size: int, channels: int) -> None:
    network = evaluated(name, channels=channels, size=size)
    with torch.no_grad():
        logits = network(random_pixels(2, channels, size, size))
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()


@every_network
@pytest.mark.parametrize(("size", "channels"), [(8, 3), (32, 1), (48, 1), (64, 3), (96, 3)])
def test_a_network_takes_the_shape_that_it_was_made_for(
    name: str, size: int, channels: int
) -> None:
    """Shapes need no numbers: without them the largest network takes milliseconds."""
    with torch.device("meta"):
        network = create(name, classes=3, channels=channels, image_size=size).eval()
        logits = network(torch.empty(2, channels, size, size))
    assert logits.shape == (2, 3)


@every_network
def test_a_network_trains_on_the_smallest_images(name: str) -> None:
    network = create(name, classes=3, channels=1, image_size=8).train()
    logits = network(random_pixels(4, 1, 8, 8))
    nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0])).backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize(
    ("name", "parameters", "dropout"),
    [
        ("cnn@width=32", 357514, 0.0),
        ("cnn@width=64", 1423626, 0.0),
        ("cnn@width=8+dropout=0.25", 22954, 0.25),
    ],
)
def test_options_follow_a_name(name: str, parameters: int, dropout: float) -> None:
    network = create(name, classes=10)
    assert parameter_count(network) == parameters
    assert network.get_submodule("body").dropout == dropout
    network.train()
    with torch.no_grad():
        pixels = random_pixels(64, 3, 32, 32)
        assert torch.equal(network(pixels), network(pixels)) == (dropout == 0)


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if "cells" in net.options])
def test_cells_keep_the_place_of_what_an_image_shows(name: str) -> None:
    """Known answer: the output of a map that is pooled by hand, and one cell is the usual mean."""
    plain, one = (create(n, classes=3, image_size=32).eval() for n in (name, f"{name}@cells=1"))
    one.load_state_dict(plain.state_dict())
    pixels = random_pixels(2, 3, 32, 32)
    assert torch.equal(one(pixels), plain(pixels))

    two = create(f"{name}@cells=2", classes=3, image_size=32).eval()
    head = head_of(two, 3)
    assert head is not None
    maps: list[torch.Tensor] = []
    layers = dict(two.named_modules())
    last = layers["body.bn"] if name.startswith("resnetc") else layers["body.layer4"]
    last.register_forward_hook(lambda _, __, out: maps.append(out.relu()))
    found = two(pixels)
    height, width = maps[0].shape[2] // 2, maps[0].shape[3] // 2
    corners = [
        maps[0][:, :, y * height : (y + 1) * height, x * width : (x + 1) * width].mean((2, 3))
        for y in (0, 1)
        for x in (0, 1)
    ]
    by_hand = head.layer(torch.stack(corners, dim=2).flatten(1))
    torch.testing.assert_close(found, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "size"), [("resnet18@cells=5", 32), ("resnetc20@cells=3", 8)])
def test_more_cells_than_the_maps_have_are_refused(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match="take fewer cells or larger images"):
        create(name, classes=3, image_size=size)


def test_the_original_of_defensive_distillation_has_no_padding() -> None:
    """By hand from Carlini and Wagner's code: 5x5x128 features reach the linear layers."""
    convolutions = 3 * 9 * 64 + 64 + 64 * 9 * 64 + 64 + 64 * 9 * 128 + 128 + 128 * 9 * 128 + 128
    linear = 3200 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10
    assert parameter_count(create("papernot@padding=0", classes=10)) == convolutions + linear
    assert (
        create("papernot@padding=0", classes=3, image_size=16)(torch.rand(2, 3, 16, 16))
        .isfinite()
        .all()
    )
    with pytest.raises(ConfigError, match="without padding takes images of 16 pixels"):
        create("papernot@padding=0", classes=3, image_size=15)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cnn@", "cannot be parsed; wanted are options such as cnn@width=64"),
        ("cnn@width", "cannot be parsed"),
        ("cnn@width=8+width=8", "cannot be parsed"),
        ("cnn@width=0", "width is 0; wanted is int from 1 to 4096"),
        ("cnn@width=6.5", "width is 6.5; wanted is int"),
        ("cnn@dropout=1", "dropout is 1; wanted is float from 0 to 0.99"),
        ("cnn@depth=3", "no option of cnn 'depth'"),
        ("resnet18@width=3", "no option of resnet18 'width'"),
        ("cnnn@width=3", "no network 'cnnn'. Did you mean cnn"),
        ("timm:../evil", "no plain name of timm"),
        ("timm:hf-hub:a/b", "no plain name of timm"),
    ],
)
def test_options_and_library_names_that_cannot_be_are_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        create(name, classes=10)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_not_installed_is_named(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"{library}:resnet18 needs .*denature\[{library}\]"):
        create(f"{library}:resnet18", classes=10)


@pytest.mark.parametrize(
    "name", ["timm:resnet18", "timm:vit_tiny_patch16_224", "torchvision:resnet18"]
)
def test_networks_of_libraries_take_our_shapes(name: str) -> None:
    pytest.importorskip(name.partition(":")[0], exc_type=ImportError)
    network = create(name, classes=7, image_size=32, mean=(0.5,) * 3, std=(0.2,) * 3).eval()
    with torch.no_grad():
        assert network(random_pixels(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(ConfigError, match="cannot make 'nothing'"):
        create(name.partition(":")[0] + ":nothing", classes=7)


@every_network
@pytest.mark.parametrize("size", [8, 24])
def test_samples_of_a_batch_do_not_mix(name: str, size: int) -> None:
    """The official CNN reshapes by a fixed size, and so may mix samples of other image sizes."""
    pixels = random_pixels(2, 3, size, size).requires_grad_()
    evaluated(name, size=size)(pixels)[1].sum().backward()
    assert pixels.grad is not None
    touched = pixels.grad.abs().amax((1, 2, 3)) > 0
    assert touched.tolist() == [False, True]


@every_network
def test_logits_may_be_of_either_sign(name: str) -> None:
    """The official MLP ends in a ReLU, so that no class can be argued against."""
    logits = evaluated(name)(random_pixels(32, 3, 8, 8))
    assert logits.min() < 0 < logits.max()


@every_network
@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_lives_inside_the_network(name: str, channels: int) -> None:
    mean, std = (0.5, 0.4, 0.3)[:channels], (0.2, 0.1, 0.3)[:channels]
    pixels = random_pixels(4, channels, 8, 8)
    by_hand = torch.stack(
        [(pixels[:, c] - mean[c]) / std[c] for c in range(channels)],
        dim=1,
    )
    plain = evaluated(name, channels=channels)
    owning = create(name, classes=3, channels=channels, image_size=8, mean=mean, std=std).eval()
    owning.get_submodule("body").load_state_dict(plain.get_submodule("body").state_dict())
    torch.testing.assert_close(owning(pixels), plain(by_hand), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(owning(pixels), plain(pixels))


def test_normalisation_travels_with_the_weights() -> None:
    made = evaluated("cnn", mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.3))
    loaded = create("cnn", classes=3, image_size=8).eval()
    loaded.load_state_dict(made.state_dict())
    pixels = random_pixels(4, 3, 8, 8)
    torch.testing.assert_close(loaded(pixels), made(pixels), rtol=0, atol=0)


def test_normalisation_is_not_trained() -> None:
    assert parameter_count(evaluated("mlp", mean=(0.5,) * 3)) == parameter_count(evaluated("mlp"))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("resnet-18", "resnet18"),
        ("ResNet18", "resnet18"),
        ("resnetc-32", "resnetc32"),
        ("cnnn", "cnn"),
        ("mpl", "mlp"),
    ],
)
def test_an_unknown_network_is_answered_with_the_nearest_names(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"no network '{name}'. Did you mean .*{nearest}"):
        create(name, classes=10)


def test_a_name_like_no_other_is_answered_with_the_whole_catalogue() -> None:
    with pytest.raises(ConfigError, match="Known: ") as raised:
        create("zzzz", classes=10)
    assert all(name in str(raised.value) for name in NETS)


@pytest.mark.parametrize("given", [torch.nn.Linear, torch.nn.Linear(2, 2)])
def test_a_class_in_place_of_a_name_is_answered_with_its_name(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"wanted is a name.*'torch.nn.modules.linear:Linear'"):
        create(given, classes=10)


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if net.minimum > 1])
def test_images_below_the_minimum_are_refused_with_the_way_out(name: str) -> None:
    least = NETS[name].minimum
    assert least <= 8
    with pytest.raises(ConfigError, match=rf"{name} .* {least} .* have {least - 1}.*--image-size"):
        create(name, classes=10, image_size=least - 1)


@pytest.mark.parametrize(("classes", "channels"), [(1, 3), (0, 3), (10, 2), (10, 4), (10, 0)])
def test_classes_and_channels_that_no_network_has_are_refused(classes: int, channels: int) -> None:
    with pytest.raises(ConfigError, match=f"{classes} classes and {channels} channels"):
        create("cnn", classes=classes, channels=channels)


MODULE = """
from torch import nn

class Tiny(nn.Module):
    def __init__(self, *, classes, channels, image_size):
        super().__init__()
        self.linear = nn.Linear(channels * image_size**2, classes)

    def forward(self, x):
        return self.linear(x.flatten(1))

def factory(**shape):
    return Tiny(**shape)

def of_one_shape(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(25, classes))

def no_module(**shape):
    return shape
"""

Writer = Callable[[str], str]


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """Writes a module into the current folder and returns what to put before the colon."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])

    def write(name: str) -> str:
        package, _, module = name.partition(".")
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / f"{module}.py").write_text(MODULE, encoding="utf-8")
        importlib.invalidate_caches()
        for imported in (package, name):
            monkeypatch.delitem(sys.modules, imported, raising=False)
        return name

    return write


@pytest.mark.parametrize("attribute", ["Tiny", "factory", "of_one_shape"])
def test_a_module_of_the_users_own_is_found_from_the_current_folder(
    own_module: Writer, attribute: str
) -> None:
    module = own_module("users_package_a.nets")
    network = create(f"{module}:{attribute}", classes=7, channels=1, image_size=5)
    assert network(random_pixels(2, 1, 5, 5)).shape == (2, 7)
    assert parameter_count(network) == 25 * 7 + 7


def test_what_a_factory_returns_must_be_a_module(own_module: Writer) -> None:
    module = own_module("users_package_b.nets")
    with pytest.raises(ConfigError, match=f"{module}:no_module returned dict"):
        create(f"{module}:no_module", classes=7)


@pytest.mark.parametrize(
    "name",
    [
        "no_such_package_anywhere:factory",
        "no_such_package_anywhere.nets:factory",
        "math:no_such_factory",
        "math:",
        ":factory",
    ],
)
def test_a_module_that_cannot_be_imported_is_refused_with_the_form_that_is_wanted(
    name: str,
) -> None:
    with pytest.raises(ConfigError, match=r"cannot be imported.*package\.module:factory") as raised:
        create(name, classes=10)
    assert repr(name) in str(raised.value)
