"""What a run takes from its machine, read once per logging interval: no thread, no waiting.

The names begin with `system/`, where MLflow's pages look for them; the step axis is that of the training metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

__all__ = ["SystemMeter"]


class SystemMeter:
    """Reads the load of this process and its machine.

    Args:
        device: The device trained on; a GPU's memory and load are read too.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._has_utilization = device.type == "cuda"
        # The first answers cover no interval; what follows is the mean since the call before.
        psutil.cpu_percent()
        self._process.cpu_percent()

    def read(self) -> dict[str, float]:
        """Returns `system/…` metrics; percentages are means since the last call. 100 of `process_cpu` is one core."""
        memory = psutil.virtual_memory()
        values = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/process_cpu_percentage": self._process.cpu_percent(),
            "system/process_memory_megabytes": self._process.memory_info().rss / 2**20,
            "system/system_memory_usage_percentage": memory.percent,
            **self._shared_memory(memory),
        }
        if self._device.type == "cuda":
            values |= self._gpu()
        return values

    @staticmethod
    def _shared_memory(memory: object) -> dict[str, float]:
        """Ray's object store lies in shared memory: decoded clips that wait show here."""
        shared = getattr(memory, "shared", None)  # Linux only
        return {} if shared is None else {"system/shared_memory_megabytes": shared / 2**20}

    def _gpu(self) -> dict[str, float]:
        import torch

        index = self._device.index or 0
        free, total = torch.cuda.mem_get_info(self._device)
        values = {
            f"system/gpu_{index}_memory_usage_megabytes": (total - free) / 2**20,
            f"system/gpu_{index}_memory_usage_percentage": 100 * (total - free) / total,
        }
        if self._has_utilization:
            try:
                values[f"system/gpu_{index}_utilization_percentage"] = float(torch.cuda.utilization(self._device))
            except (ImportError, RuntimeError):  # needs the package nvidia-ml-py
                self._has_utilization = False
        return values
