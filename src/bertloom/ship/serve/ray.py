"""The same application under Ray Serve: replicas on the machines of a cluster, more where more is asked."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

from bertloom.errors import InputError
from bertloom.ship.serve.limits import Limits

# Requests in flight at each replica at which another one is started, and the most that a replica takes: its queue has
# its own limit, in tokens.
ONGOING, MOST = 64, 1024


def bounds(replicas: str) -> tuple[int, int]:
    """The least and the most replicas of `2` or `1-4`."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", replicas)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise InputError(f"replicas: {replicas!r} given, a number from 1 or a range as 1-4 allowed")
    return least, most


def deployed(folders: Sequence[str], limits: Limits, replicas: str) -> Any:
    """The application for `ray.serve.run`; every replica opens the models itself, from folders that it sees too."""
    from ray import serve

    from bertloom.ship.serve import named

    def build() -> Any:
        from bertloom.ship.serve.app import application

        return application(named(folders), limits)

    least, most = bounds(replicas)
    scaling = {"min_replicas": least, "max_replicas": most, "target_ongoing_requests": ONGOING}
    made = serve.deployment(serve.ingress(build)(), name="bertloom", max_ongoing_requests=MOST)
    return made.options(autoscaling_config=scaling).bind()


def run(
    folders: Sequence[str], host: str, port: int, limits: Limits, say: Callable[[str], None], replicas: str
) -> None:
    """Answer until a signal; on the cluster that `RAY_ADDRESS` names, or one on this machine."""
    bounds(replicas)
    try:
        import ray
        from ray import serve
    except ImportError:
        raise InputError("engine: ray given, for which ray is needed; pip install 'ray[serve]'") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    try:
        serve.start(http_options={"host": host, "port": port})
        serve.run(deployed(folders, limits, replicas), name="bertloom")
        say(f"http://{host}:{port}/ by {replicas} replicas until Ctrl-C")
        threading.Event().wait()
    finally:
        # Replicas answer what they have before they end.
        serve.shutdown()
        ray.shutdown()
