"""What one call of `log_metrics` costs the training loop, with the flusher at work behind it.

`value` is the time per call in a loop that does nothing else, the worst case: the flusher competes
for the interpreter all the while. `total_cpu` is all processor time of the process, the flusher's
encoding and writing included, for each call.
"""

from __future__ import annotations

import json
import os
import tempfile
import time

CALLS = 200_000
ROUNDS = 5


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PLATFORM_SPOOL"] = folder
        # The agent's way: the journal is written, nothing is sent from here.
        os.environ["PLATFORM_SENDER"] = "agent"
        os.environ["PLATFORM_SYSTEM_METRICS"] = "off"
        import engineersofai_platform as platform

        run = platform.training_run("bench")
        loop = range(CALLS)
        wall, processor = [], []
        for _ in range(ROUNDS):
            cpu, start = time.process_time(), time.perf_counter()
            for _ in loop:
                run.log_metrics({"loss": 0.123456789})
            wall.append((time.perf_counter() - start) / CALLS * 1e6)
            run._recorder.drain()
            processor.append((time.process_time() - cpu) / CALLS * 1e6)
        run.close()
    wall.sort()
    processor.sort()
    figure = {
        "bench": "log_metrics_cost",
        "value": round(wall[ROUNDS // 2], 3),
        "unit": "us/call",
        "aim": 2.0,
        "total_cpu": round(processor[ROUNDS // 2], 3),
    }
    print(json.dumps(figure))


if __name__ == "__main__":
    main()
