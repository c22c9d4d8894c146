"""Derivatives along all ones of the parameters, against torch's own forward mode."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

from denature.answers.answerer import Answers
from denature.core.errors import ConfigError
from denature.core.seeds import seeded
from denature.defenses.along_ones import derivative, with_direction
from denature.defenses.base import Chain
from denature.defenses.gradient_redirection import GradientRedirection
from denature.nets import create

KINDS = ("cnn", "papernot", "resnet18", "shufflenetv2", "densenet121")

PIXELS = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Odd(nn.Module):
    """Layers and functions without rules, changes in place, parameters that meet no image first."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding="valid", bias=False)
        self.shared = nn.Conv2d(4, 4, (3, 1), padding=(1, 0), dilation=(1, 2), groups=2)
        self.bare = nn.BatchNorm2d(4, affine=False)
        self.layers = nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.frozen = nn.Parameter(torch.rand(8), requires_grad=False)
        self.unused = nn.Linear(3, 3)
        self.last = nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.shared(self.shared(x).mul_(0.5)) + x
        x = F.relu(self.bare(x), inplace=True)
        x.add_(self.token.exp().mean())
        x, _ = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, return_indices=True)
        x = self.layers(F.avg_pool2d(x, 2, 2)[..., :1].expand(-1, -1, -1, 6))
        x = torch.stack([x.mean((2, 3)), x.amax((2, 3))], 1).flatten(1).unsqueeze(1)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        x = x + self.attention(x, x, x)[0]
        logits: Tensor = self.last(F.softplus(x[:, 0] * self.frozen.sigmoid()))
        return logits


def by_torch(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    parameters = {name: value.detach() for name, value in network.named_parameters()}
    ones = {name: torch.ones_like(value) for name, value in parameters.items()}
    torch.backends.mha.set_fastpath_enabled(False)  # has no forward mode
    found = jvp(lambda p: functional_call(network, p, (pixels,)), (parameters,), (ones,))
    torch.backends.mha.set_fastpath_enabled(True)
    return found[0], found[1]


def spread(network: nn.Module) -> nn.Module:
    """In eval mode, in float64, with statistics and scales that are not those of a start."""
    with torch.no_grad():
        for tensor in (*network.buffers(), *network.parameters()):
            if tensor.dtype.is_floating_point and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
    return network.double().eval()


def made(name: str) -> nn.Module:
    with seeded(0, "along ones", name):
        return spread(Odd() if name == "odd" else create(name, classes=5, image_size=16))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["odd", *KINDS])
def test_the_derivatives_are_those_of_forward_mode(name: str) -> None:
    network = made(name)
    logits, found = derivative(network, PIXELS)
    wanted = by_torch(network, PIXELS)
    torch.testing.assert_close(logits, wanted[0])
    torch.testing.assert_close(found / wanted[1].abs().max(), wanted[1] / wanted[1].abs().max())
    assert (type(logits), type(found)) == (Tensor, Tensor)


def test_a_copy_shares_the_tensors_of_its_network_and_leaves_it_as_it_was() -> None:
    network = made("cnn")
    copy = with_direction(network)
    assert with_direction(copy) is copy
    assert all(isinstance(p, nn.Parameter) for p in network.parameters())
    places = [{t.data_ptr() for t in net.state_dict().values()} for net in (network, copy)]
    assert places[0] == places[1]
    with torch.no_grad():
        assert type(network(PIXELS)) is Tensor


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_threads_that_ask_at_the_same_time_get_the_same_answers_as_one() -> None:
    """As models behind this defense do in one server; two streams look at one network."""
    networks = [made("odd"), made("mlp")] * 2
    chain = Chain((GradientRedirection(),))
    streams = [chain.start({"surrogate": network}) for network in networks]
    true = Answers("probabilities", torch.full((2, 5), 0.2, dtype=torch.float64))
    wanted = [stream(true, PIXELS).values for stream in streams]

    def ask(place: int) -> bool:
        answers = (streams[place](true, PIXELS).values for _ in range(20))
        return all(torch.equal(found, wanted[place]) for found in answers)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))


def test_logits_without_a_connection_to_parameters_are_refused() -> None:
    class Numpy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.flatten(1).numpy() @ self.weight.detach().numpy().T)

    with pytest.raises(ConfigError, match="derivative of Numpy by its parameters is unknown"):
        derivative(Numpy(768, 5).double().eval(), PIXELS)
