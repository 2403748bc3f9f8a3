"""The weights that training starts from, and what the driver provides for them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ovos_ray import networks
from ovos_ray.config import INITS, ExperimentConfig
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.networks.remote_weights import weights_file
from ovos_ray.networks.weights import find_imagenet_file, imagenet_at_hand, imagenet_files
from ovos_ray.run.pretraining import pretrained_weights
from ovos_ray.storage import Storage

__all__ = ["describe_initial", "initial_network", "provide_initial"]


def initial_network(config: ExperimentConfig) -> VOSNetwork:
    """Builds the network with the weights that training starts from: a pretraining's, a file's, or as initialised.

    Raises:
        WeightsError: ImageNet weights or the weights file cannot be had, or do not fit.
        FileNotFoundError: The pretraining is not finished.
    """
    network, init = networks.build(config.network.name, seed=config.seed), config.network.init
    if config.pretrain is not None:
        networks.load_weights(network, pretrained_weights(config), strict=True)
    elif init not in INITS:
        networks.load_weights(network, weights_file(init, config.network.init_sha256), strict=True)
    elif init == "imagenet" or (init == "auto" and networks.has_imagenet(network)):
        _load_imagenet(network, _provided(config))
    return network


def provide_initial(config: ExperimentConfig) -> None:
    """Puts ImageNet weights where workers find them: into the run's storage. The driver does so before anything starts.

    Nodes without internet then train, and a file that cannot be had fails here and not on each of them.

    Raises:
        WeightsError: The files are neither there nor to be fetched.
    """
    if config.pretrain is not None or config.network.init not in ("auto", "imagenet"):
        return
    place = _provided(config)
    for name in imagenet_files(networks.structure(config.network.name)):
        if not place.exists(name):
            place.write(find_imagenet_file(name).read_bytes(), name)


def describe_initial(config: ExperimentConfig) -> str:
    """Returns, for a dry run, whether the ImageNet weights of a run are at hand; empty where it takes none.

    Raises:
        WeightsError: They are neither there nor to be fetched, as `provide_initial` would find.
    """
    if config.pretrain is not None or config.network.init not in ("auto", "imagenet"):
        return ""
    place, names = _provided(config), imagenet_files(networks.structure(config.network.name))
    fetched = [name for name in names if not place.exists(name) and not imagenet_at_hand(name)]
    if not names:
        return ""
    return f"ImageNet weights: {', '.join(fetched)} will be fetched" if fetched else "ImageNet weights are at hand"


def _provided(config: ExperimentConfig) -> Storage:
    return Storage(config.storage) / "imagenet"


def _load_imagenet(network: VOSNetwork, place: Storage) -> None:
    names = imagenet_files(network)
    if not names or not all(place.exists(name) for name in names):
        networks.load_imagenet(network)
        return
    with tempfile.TemporaryDirectory(prefix="ovos-imagenet-") as folder:
        for name in names:
            Path(folder, name).write_bytes(place.read(name))
        networks.load_imagenet(network, folder)
