"""Track training runs and register models.

    import engineersofai_platform as platform

    with platform.training_run(name="first", tags={"team": "nlp"}) as run:
        run.log_metrics({"loss": 0.1})

Importing this package must stay cheap, since every script pays for it: nothing that opens sockets,
hashes or parses is imported here. Networking, models and notebooks are loaded when first used.
"""

from __future__ import annotations

from ._errors import PlatformError
from ._runs import ModelVersion, Run, current_run, model, training_run
from ._sweeps import sweep, sweep_parameters
from ._version import __version__

__all__ = [
    "ModelVersion",
    "PlatformError",
    "Run",
    "__version__",
    "current_run",
    "model",
    "sweep",
    "sweep_parameters",
    "training_run",
]
