"""Where networks are trained: on the GPU where there is one, else on the CPU.

A trainer gets the device as PyTorch names it. It draws its random numbers on the CPU, so that they are the same on
every device, moves them and its networks there, and gives the networks back on the CPU, where they are measured and
exported.
"""

from typing import Final, Literal, get_args

import torch

from stream.errors import TapewatchError

Device = Literal["cpu", "cuda"]
Wanted = Literal["auto", "cpu", "cuda"]
WANTED: Final[tuple[Wanted, ...]] = get_args(Wanted)


def choose(wanted: Wanted) -> Device:
    """The device to train on.

    Raises
    ------
    TapewatchError
        If a GPU is asked for and there is none that PyTorch can use.
    """
    there = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "cuda" and not there:
        missing = (
            f"PyTorch {torch.__version__} is built without CUDA: install a build with it"
            if torch.version.cuda is None
            else f"PyTorch sees no NVIDIA GPU with a driver for CUDA {torch.version.cuda}"
        )
        raise TapewatchError(f"--device cuda: {missing}, or train with --device cpu")
    return "cuda" if there else "cpu"


def name(device: Device) -> str:
    """As a person knows it."""
    return "CPU" if device == "cpu" else f"GPU {torch.cuda.get_device_name()}"


def libraries(device: Device) -> dict[str, str]:
    """What a card names beside the libraries of every training: CUDA's version and the GPU, nothing for the CPU."""
    return {} if device == "cpu" else {"cuda": f"{torch.version.cuda} ({torch.cuda.get_device_name()})"}
