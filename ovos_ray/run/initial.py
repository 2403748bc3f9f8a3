"""The weights that training starts from."""

from __future__ import annotations

from ovos_ray import networks
from ovos_ray.config import INITS, ExperimentConfig
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.run.pretraining import pretrained_weights

__all__ = ["initial_network"]


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
        networks.load_weights(network, init, strict=True)
    elif init == "imagenet" or (init == "auto" and networks.has_imagenet(network)):
        networks.load_imagenet(network)
    return network
