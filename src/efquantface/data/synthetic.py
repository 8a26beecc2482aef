"""Faces of synthetic identities from the default DCGAN generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from efquantface.contract import FaceContract
from efquantface.data.faces import FaceSet
from efquantface.errors import AssetError
from efquantface.extras import wanted_for
from efquantface.interfaces import Progress
from efquantface.stored import load_stored

if TYPE_CHECKING:
    from torch import Tensor, nn

LATENT = 100
_SPREAD = 0.3  # noise around an identity's centre
_BATCH = 64


def load_generator(path: Path) -> nn.Module:
    """The generator with its weights: z float32 (N,100,1,1) to RGB float32 (N,3,64,64) in [-1, 1].

    Five transposed convolutions (4x4) with BatchNorm and ReLU between them and a tanh at the end
    (Radford et al. 2016), named as in the weights file.

    Raises:
        AssetError: the file is damaged or holds other weights.
        MissingPackageError: PyTorch is not installed.
    """
    with wanted_for("making synthetic faces"):
        from torch import nn
    widths = (512, 256, 128, 64)
    layers: list[nn.Module] = []
    channels = LATENT
    for index, width in enumerate(widths):
        stride, padding = (1, 0) if index == 0 else (2, 1)
        layers += [
            nn.ConvTranspose2d(channels, width, 4, stride, padding, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    layers += [nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh()]
    network = nn.Sequential(*layers)
    try:
        stored = load_stored(path)["netG_state_dict"]
        network.load_state_dict({k.removeprefix("main."): v for k, v in stored.items()})
    except Exception as error:  # other content fails in many ways
        raise AssetError(f"{path}: not the face generator's weights ({error})") from None
    return network.eval()


def synthetic_faces(
    generator: nn.Module,
    contract: FaceContract,
    *,
    identities: int,
    images_each: int,
    seed: int,
    spread: float = _SPREAD,
    progress: Progress | None = None,
) -> FaceSet:
    """Faces of new identities: each has a latent centre, and its images are drawn around it.

    Args:
        generator: see :func:`load_generator`.
        contract: gives the crop size; images of 64x64 are scaled to it.
        identities, images_each: how many people, and images of each.
        seed: another seed gives other people.
        spread: standard deviation of the latent around its centre; between identities it is 1.
        progress: called with (done, total).
    """
    import torch

    rng = np.random.default_rng([seed, 40])
    centres = rng.standard_normal((identities, 1, LATENT))
    noise = rng.standard_normal((identities, images_each, LATENT))
    latents = (centres + spread * noise).reshape(-1, LATENT).astype(np.float32)
    latents /= np.sqrt(1 + spread**2)
    size = (contract.width, contract.height)
    images: list[npt.NDArray[np.uint8]] = []
    for start in range(0, len(latents), _BATCH):
        z = torch.from_numpy(latents[start : start + _BATCH]).view(-1, LATENT, 1, 1)
        with torch.no_grad():
            made: Tensor = generator(z)
        array = ((made.permute(0, 2, 3, 1).numpy() + 1) * 127.5).round().clip(0, 255)
        images += [
            np.asarray(Image.fromarray(face).resize(size, Image.Resampling.BICUBIC))
            for face in array.astype(np.uint8)
        ]
        if progress:
            progress(len(images), len(latents))
    names = [f"synthetic{seed}_{i:05d}" for i in range(identities)]
    return FaceSet(
        np.stack(images),
        [f"{name}/{j:03d}" for name in names for j in range(images_each)],
        np.repeat(np.arange(identities), images_each),
        names,
        f"synthetic faces, seed {seed}",
    )
