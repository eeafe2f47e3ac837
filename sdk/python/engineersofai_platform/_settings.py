"""Where things are: the spool, the server, and the platform run this process belongs to."""

from __future__ import annotations

import os

from ._errors import PlatformError, reason, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

# How long close() and the end of the process wait for records to reach the server.
DEFAULT_DRAIN_SECONDS = 5.0
DEFAULT_SYSTEM_METRICS_SECONDS = 10.0


def home() -> str:
    """`$PLATFORM_HOME`, or a folder of the user's."""
    return os.environ.get("PLATFORM_HOME") or os.path.join(os.path.expanduser("~"), ".engineersofai-platform")


def spool_folder() -> str:
    """Where journals are written, without looking whether it can be."""
    return os.environ.get("PLATFORM_SPOOL") or os.path.join(home(), "spool")


def usable_spool_folder() -> str:
    """The spool, or a folder under the temporary one where the home cannot be written."""
    spool = spool_folder()
    try:
        os.makedirs(spool, mode=0o700, exist_ok=True)
        return spool
    except OSError as error:
        import tempfile

        identity = os.getuid() if hasattr(os, "getuid") else "user"
        other = os.path.join(tempfile.gettempdir(), f"engineersofai-platform-{identity}", "spool")
        try:
            os.makedirs(other, mode=0o700, exist_ok=True)
        except OSError:
            return spool
        say(
            f"cannot write to {spool} ({reason(error)}); recording to {other}; "
            "set PLATFORM_SPOOL to a folder that can be written",
            once="spool",
        )
        return other


class Server:
    """Address and token of a coordinator."""

    def __init__(self, url: str, token: Optional[str]) -> None:
        self.url = url.rstrip("/")
        self.token = token


def server() -> Optional[Server]:
    """From `PLATFORM_URL` and `PLATFORM_TOKEN`, else from `client.json`; None: nothing configured."""
    url = os.environ.get("PLATFORM_URL")
    token = os.environ.get("PLATFORM_TOKEN")
    if url and token:
        return Server(url, token)
    kept: dict[str, object] = {}
    path = os.path.join(home(), "client.json")
    try:
        import json

        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        if isinstance(content, dict):
            kept = content
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        say(f"cannot read {path} ({reason(error)}); run `platform login` to write it again", once="client.json")
    kept_url = kept.get("url")
    kept_token = kept.get("token")
    if url:
        # A token is only ever sent to the server it was made for.
        if isinstance(kept_url, str) and kept_url.rstrip("/") == url.rstrip("/") and isinstance(kept_token, str):
            return Server(url, token or kept_token)
        return Server(url, token)
    if isinstance(kept_url, str) and kept_url:
        return Server(kept_url, token or (kept_token if isinstance(kept_token, str) else None))
    return None


def agent_sends() -> bool:
    """Inside a platform run the agent relays the journal and the SDK uses no network."""
    return os.environ.get("PLATFORM_SENDER") == "agent"


def platform_run() -> Optional[str]:
    """Id of the platform run this process is part of."""
    return os.environ.get("PLATFORM_RUN_ID") or None


def platform_tags() -> dict[str, str]:
    """Tags of the platform run."""
    text = os.environ.get("PLATFORM_TAGS")
    if not text:
        return {}
    import json

    try:
        tags = json.loads(text)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in tags.items()} if isinstance(tags, dict) else {}


def system_metrics_seconds(asked: Optional[float]) -> float:
    """Seconds between samples of system metrics; 0: none."""
    if asked is not None:
        return max(0.0, float(asked))
    text = os.environ.get("PLATFORM_SYSTEM_METRICS", "").strip().lower()
    if text in ("off", "false", "no", "0"):
        return 0.0
    try:
        return max(0.1, float(text))
    except ValueError:
        return DEFAULT_SYSTEM_METRICS_SECONDS


def drain_seconds() -> float:
    """How long the end of a run waits for its records to be delivered."""
    try:
        return max(0.0, float(os.environ["PLATFORM_DRAIN_SECONDS"]))
    except (KeyError, ValueError):
        return DEFAULT_DRAIN_SECONDS


_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def new_local_run() -> str:
    """An id for a run outside the platform: sortable by time, unique without asking anybody."""
    import time

    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    return "local-" + "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def check_run(run: str) -> str:
    """Returns the id when it has the grammar of one: it names a folder of the spool."""
    import re

    if isinstance(run, str) and re.fullmatch(r"(run-\d+|dev-[0-9a-f]{8}|local-[0-9A-Za-z]{26})(\.[0-9a-f]{8})?", run):
        return run
    raise PlatformError(
        f"{run!r} is not a run id; allowed are ids such as run-17, run-17.0a1b2c3d and local-… as "
        "`platform runs list` shows them"
    )
