"""How long `import engineersofai_platform` takes in a fresh interpreter: the median of 21."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import time
start = time.perf_counter()
import engineersofai_platform
print((time.perf_counter() - start) * 1000)
"""


def main() -> None:
    times = sorted(float(subprocess.check_output([sys.executable, "-c", CODE])) for _ in range(21))
    print(json.dumps({"bench": "sdk_import_time", "value": round(times[10], 3), "unit": "ms", "aim": 40.0}))


if __name__ == "__main__":
    main()
