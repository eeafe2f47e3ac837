"""The commands of the SDK: `python -m engineersofai_platform sync`."""

from __future__ import annotations

import argparse
import sys

from . import _settings
from ._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


def main(arguments: Optional[list[str]] = None) -> int:
    """Runs one command; an exit code."""
    parser = argparse.ArgumentParser(prog="python -m engineersofai_platform")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    sync = commands.add_parser("sync", help="send what was recorded while no server answered")
    sync.add_argument("--spool", help="folder to send from (default: $PLATFORM_SPOOL, else the one of the home)")
    given = parser.parse_args(arguments)
    from . import _sync

    return _sync.sync(given.spool or _settings.spool_folder())


if __name__ == "__main__":
    sys.exit(main())
