"""Writes networks.json anew; run it from the repository root after a change that is meant to alter the numbers:

PYTHONPATH=tests/support python tests/unit/golden/make_networks.py
"""

import json
from pathlib import Path

import torch
from seeded_network import measure

NAMES = ("stcn", "xmem", "cutie-base", "cutie-small", "stcn-tiny", "xmem-tiny", "cutie-tiny")

if __name__ == "__main__":
    torch.manual_seed(0)
    values = {name: measure(name) for name in NAMES}
    path = Path(__file__).with_name("networks.json")
    path.write_text(json.dumps({"torch": torch.__version__, "device": "cpu", "values": values}, indent=1) + "\n")
