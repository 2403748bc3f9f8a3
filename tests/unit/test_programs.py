"""The programs of `torch.export` compute what the network computes, with the memory outside."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ovos_ray import networks
from ovos_ray.errors import ConfigError
from ovos_ray.networks.base import Readout
from ovos_ray.networks.programs import export_programs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stcn-tiny", "xmem-tiny", "cutie-tiny"])
def test_a_video_walked_with_the_programs_gives_the_networks_logits(name: str, tmp_path: Path) -> None:
    network = networks.build(name, seed=1).eval()
    paths = export_programs(network, tmp_path / "net.pt2", size=(32, 48), num_objects=2)
    assert [path.name for path in paths] == ["net.encode.pt2", "net.memorise.pt2", "net.segment.pt2"]
    encode, memorise, segment = (torch.export.load(path).module() for path in paths)
    frames = torch.rand(3, 1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    state = network.start((torch.rand(1, 2, 32, 48, generator=torch.Generator().manual_seed(1)) > 0.7).float())
    masks, sensory = state.masks, state.sensory
    with torch.no_grad():
        features = [network.encode(frame) for frame in frames]
        memory, state = network.memorise(features[0], state, deep_update=True)
        value, summary, sensory = memorise(encode(frames[0]), masks, sensory)
        for t in (1, 2):
            # What is read does not matter here: the memory of the first frame, as it lies.
            readout = Readout(value=memory.value, summary=memory.summary)
            wanted, state = network.segment(features[t], readout, state)
            found, masks, sensory = segment(encode(frames[t]), value, summary, masks, sensory)
            assert torch.equal(found, wanted), t
    assert torch.equal(value, memory.value)


def test_sizes_that_no_program_can_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="programs for 33x48 pixels"):
        export_programs(networks.build("stcn-tiny"), tmp_path / "net.pt2", size=(33, 48), num_objects=1)
