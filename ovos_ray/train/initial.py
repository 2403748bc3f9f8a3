"""The weights that training starts from."""

from __future__ import annotations

from ovos_ray import networks
from ovos_ray.config import ExperimentConfig
from ovos_ray.networks.base import VOSNetwork
from ovos_ray.train.pretraining import pretrained_weights

__all__ = ["initial_network"]


def initial_network(config: ExperimentConfig) -> VOSNetwork:
    """Builds the network with the weights that training starts from: a pretraining's, a file's, or as initialised.

    Raises:
        WeightsError: ImageNet weights or the weights file cannot be had, or do not fit.
        FileNotFoundError: The pretraining is not finished.
    """
    network = networks.build(config.network.name, seed=config.seed)
    if config.pretrain is not None:
        networks.load_weights(network, pretrained_weights(config), strict=True)
    elif config.network.init == "imagenet":
        networks.load_imagenet(network)
    elif config.network.init != "random":
        networks.load_weights(network, config.network.init, strict=True)
    return network
