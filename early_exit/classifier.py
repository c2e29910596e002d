"""The distortion classifier: a tiny convolutional network on Fourier spectra (docs/paper.md §4)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from early_exit.batches import Batches, TrainingData
from early_exit.determinism import set_deterministic
from early_exit.network import to_tensors
from early_exit.settings import Training
from early_exit.spectrum import brightest
from early_exit.training import Fit, Setup, fit, optimizer_of
from early_exit.weights import WeightsError

VALIDATION_BATCH = 128  # the released code's (docs/paper.md §4)


class DistortionNet(nn.Module):
    """The paper's network, no activations: 7,727 parameters at 224 and 5,687 at 64 for three kinds (docs/paper.md §4).

    conv 3→32 k3 s2 · conv 32→16 k3 · maxpool 2 · conv 16→1 k1 · maxpool 2 · linear → ``kinds``.
    """

    def __init__(self, size: int, kinds: int = 3, *, released_spectra: bool = False) -> None:
        super().__init__()
        self.size = size
        self.released_spectra = released_spectra
        self.brightest = brightest(size, released=released_spectra)
        self.first = nn.Conv2d(3, 32, 3, stride=2)  # (N, 3, 224, 224) to (N, 32, 111, 111)
        self.second = nn.Conv2d(32, 16, 3)  # (N, 16, 109, 109), pooled to 54
        self.third = nn.Conv2d(16, 1, 1)  # (N, 1, 54, 54), pooled to 27
        # k3 s2: (size - 3) // 2 + 1; k3: 2 less; each maxpool halves
        side = (((size - 3) // 2 + 1 - 2) // 2) // 2
        self.linear = nn.Linear(side * side, kinds)  # 729 inputs at 224

    def forward(self, spectra: Tensor) -> Tensor:
        """Spectra (N, size, size), any float type or uint8, to logits (N, 1, kinds) in label order.

        A spectrum is scaled to [0, 1] and stands in all three input channels. Nothing stands between the
        first two convolutions, so they are computed as the one 7×7 convolution of stride 2 that they amount
        to, and that as a 4×4 one on the four pixels of each 2×2 square: the same function and gradients up
        to rounding, several times faster.
        """
        x = spectra.unsqueeze(1).to(torch.float32) / self.brightest  # (N, 1, size, size)
        # (32, 1, 3, 3); the three channels are equal, so their kernels add up
        first = self.first.weight.sum(dim=1, keepdim=True)
        kernel = F.conv_transpose2d(self.second.weight, first, stride=2)  # (16, 1, 7, 7)
        assert self.first.bias is not None
        assert self.second.bias is not None
        # the first layer's bias reaches every tap of the second
        bias = self.second.bias + self.second.weight.sum(dim=(2, 3)) @ self.first.bias
        odd = self.size % 2  # an odd side gets a black line: squares must be whole
        squares = F.pixel_unshuffle(F.pad(x, (0, odd, 0, odd)), 2)  # (N, 4, size/2, size/2)
        # (16, 4, 4, 4), as the squares are laid out
        kernel = F.pixel_unshuffle(F.pad(kernel, (0, 1, 0, 1)), 2)
        x = F.conv2d(squares, kernel, bias)  # (N, 16, side, side)
        x = F.max_pool2d(x, 2)  # (N, 16, side/2, side/2)
        x = F.max_pool2d(self.third(x), 2)  # (N, 1, side/4, side/4)
        logits: Tensor = self.linear(x.flatten(1))  # (N, kinds)
        return logits.unsqueeze(1)  # one exit: the loop trains it as it trains the four


def load_classifier(
    tensors: Mapping[str, np.ndarray], size: int, *, released_spectra: bool = False
) -> DistortionNet:
    """The classifier with these weights, in eval mode; ``WeightsError`` when they do not fit ``size``."""
    # 1 where there is no bias: the comparison of names below then refuses the weights
    kinds = np.size(tensors.get("linear.bias", 0))
    net = DistortionNet(size, kinds, released_spectra=released_spectra)
    expected = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    if {name: array.shape for name, array in tensors.items()} != expected:
        raise WeightsError(f"classifier: not the weights of a DistortionNet of size {size}")
    net.load_state_dict(to_tensors(tensors))
    return net.eval()


def train_classifier(data: TrainingData, training: Training, setup: Setup) -> Fit:
    """Train a ``DistortionNet`` of the spectra's size with Adam and cross-entropy (docs/paper.md §4).

    ``data``: float16 spectra (N, size, size), released ones uint8; its classes are the kinds.
    """
    set_deterministic(setup.threads)
    (spectra,) = data.train.arrays
    # fresh weights come from torch's global stream: seeded here, then left as it was
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setup.seed)
        released = spectra.dtype == np.uint8  # ours are float16
        net = DistortionNet(spectra.shape[-1], data.classes, released_spectra=released).to(setup.device)

    # the network itself casts to float32, on its own device
    def to_tensor(rows: tuple[np.ndarray, ...]) -> Tensor:
        return torch.tensor(rows[0])  # (B, size, size), in the few bytes that they are stored in

    batches = Batches(data, training.batch_size, VALIDATION_BATCH, to_tensor, order_seed=setup.order_seed)
    return fit(net, optimizer_of(net, training), batches, training, setup)


def classify(net: DistortionNet, spectra: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Label of the kind (int64) and its probability (float64), both (N,), of spectra (N, size, size).

    On the CPU, one spectrum at a time, so that the bits do not depend on how images are grouped.
    """
    set_deterministic(threads)
    net.eval()
    with torch.inference_mode():
        rows = [net(torch.tensor(spectra[i : i + 1]))[0] for i in range(len(spectra))]  # N × (1, kinds)
    # (N, kinds), of no spectra too; softmax in float64, as of the experts' logits
    logits = torch.cat([*rows, torch.empty(0, net.linear.out_features)]).to(torch.float64)
    confidence, kind = logits.softmax(dim=1).max(dim=1)  # (N,) each
    return kind.numpy(), confidence.numpy()
