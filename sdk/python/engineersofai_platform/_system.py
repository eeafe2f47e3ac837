"""System metrics of this process and its devices, without any package.

Processor and memory come from the operating system, devices from the driver's NVML library where
there is one. Simulated devices have no readings, so none are logged for them.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

# The first sample comes early, so that a short run has one.
FIRST_SAMPLE_SECONDS = 1.0


class System:
    """Reads what this process uses."""

    def __init__(self) -> None:
        member = os.environ.get("PLATFORM_MEMBER", "0")
        # Members of a gang write to the same run: only the first has the plain names.
        self._prefix = "system/" if member in ("", "0") else f"system/member{member}/"
        self._processor = self._processor_seconds()
        self._at = time.monotonic()
        self._devices: Optional[Devices] = None

    @staticmethod
    def _processor_seconds() -> float:
        times = os.times()
        return times.user + times.system

    def sample(self) -> dict[str, float]:
        """One reading; the processor's is the average since the last, 100 for one whole core."""
        now, processor = time.monotonic(), self._processor_seconds()
        elapsed = max(now - self._at, 1e-6)
        prefix = self._prefix
        metrics = {f"{prefix}cpu_percent": round(100.0 * (processor - self._processor) / elapsed, 2)}
        self._at, self._processor = now, processor
        memory = resident_mib()
        if memory is not None:
            metrics[f"{prefix}memory_mib"] = memory
        if self._devices is None:
            self._devices = Devices()
        metrics.update(self._devices.sample(prefix))
        return metrics


def resident_mib() -> Optional[float]:
    """Memory of this process that is in use, where the system says."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return round(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 2)
    except (OSError, ValueError, IndexError):
        return None


class Devices:
    """Readings of the NVIDIA devices this process may use."""

    def __init__(self) -> None:
        self._library: Any = None
        self._handles: list[tuple[int, Any]] = []
        asked = self._asked()
        if asked is not None and not asked:
            return
        try:
            import ctypes

            self._ctypes = ctypes
            library = ctypes.CDLL("libnvidia-ml.so.1")
            if library.nvmlInit_v2() != 0:
                return
            self._library = library
            self._find(asked)
        except (ImportError, OSError, AttributeError):
            self._library = None

    @staticmethod
    def _asked() -> Optional[list[str]]:
        """Ids of real devices in the order this process sees them; None: every device there is."""
        text = os.environ.get("PLATFORM_DEVICES")
        if text:
            import json

            try:
                devices = json.loads(text)
                return [str(device["id"]) for device in devices if not device.get("simulated")]
            except (ValueError, TypeError, KeyError, AttributeError):
                return None
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return None
        return [part.strip() for part in visible.split(",") if part.strip() not in ("", "-1")]

    def _find(self, asked: Optional[list[str]]) -> None:
        ctypes, library = self._ctypes, self._library
        if asked is None:
            count = ctypes.c_uint()
            if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
                return
            asked = [str(index) for index in range(count.value)]
        for place, name in enumerate(asked):
            handle = ctypes.c_void_p()
            if name.isdigit():
                failed = library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(name)), ctypes.byref(handle))
            else:
                failed = library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
            if not failed:
                self._handles.append((place, handle))

    def sample(self, prefix: str) -> dict[str, float]:
        """Utilisation and memory of each device; what a device cannot say is left out."""
        metrics: dict[str, float] = {}
        if not self._handles:
            return metrics
        ctypes, library = self._ctypes, self._library
        # nvmlUtilization_t {gpu, memory} in percent; nvmlMemory_t {total, free, used} in bytes.
        rates, memory = (ctypes.c_uint * 2)(), (ctypes.c_ulonglong * 3)()
        for place, handle in self._handles:
            if library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(rates)) == 0:
                metrics[f"{prefix}gpu{place}_utilization_percent"] = float(rates[0])
            if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
                metrics[f"{prefix}gpu{place}_memory_mib"] = round(memory[2] / 2**20, 1)
        return metrics
