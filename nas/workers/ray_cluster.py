"""Workers on a Ray cluster: each an actor that starts the worker process of nas/workers/local.py on its node.

The actor only passes lines of text on. A lost node costs each of its tasks one attempt, like any lost worker.
"""

import logging
import os
import queue
import socket
import sys
import threading
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nas.config.search_config import SearchConfig
from nas.workers.launcher import Received, Worker
from nas.workers.local import LocalWorker
from nas.workers.protocol import Died, Open, Order, from_driver, from_worker
from results.run_folder import RunFolder
from results.version import program_version
from search_spaces.errors import InputError

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
_START_SECONDS = 60.0  # for a node to answer
_RECEIVE_SECONDS = 1.0
_KNOCK_SECONDS = 5.0


class _Relay:
    """On a node: one worker process and its lines."""

    def __init__(self, order: str) -> None:
        self._inbox: queue.Queue[Received] = queue.Queue()
        self._worker = LocalWorker(Open.model_validate_json(order), self._inbox)

    def receive(self) -> list[str]:
        """The worker's messages since the last call; waits a second for one."""
        try:
            events = [self._inbox.get(timeout=_RECEIVE_SECONDS)[1]]
        except queue.Empty:
            return []
        while not self._inbox.empty():
            events.append(self._inbox.get()[1])
        return [event.model_dump_json() for event in events]

    def send(self, line: str) -> None:
        self._worker.send(from_driver.validate_json(line))

    def close(self) -> None:
        self._worker.close_input()


def _knock(address: str) -> None:
    """Raise OSError if nothing listens there: Ray would keep trying for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def _look(paths: list[str]) -> tuple[str, str, list[str]]:
    """On a node: its name, this program's version there, and which of the paths it does not see."""
    return socket.gethostname(), program_version(), [path for path in paths if not Path(path).exists()]


class RayWorker:
    """The driver's side of a worker on a node."""

    def __init__(self, actor: Any, order: Open, inbox: "queue.Queue[Received]") -> None:
        self.device, self.log = order.device, Path(order.log)
        self._order = order
        self.task: str | None = None
        self.since, self.started, self.ready = 0.0, time.monotonic(), False
        self._actor, self._inbox = actor, inbox
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        import ray

        try:
            while True:
                for line in ray.get(self._actor.receive.options(concurrency_group="receive").remote()):
                    event = from_worker.validate_json(line)
                    self._inbox.put((self, event))
                    if isinstance(event, Died):
                        return
        except (ray.exceptions.RayError, ValidationError) as error:
            ray.kill(self._actor)  # if it is only out of reach, it must not write beside its successor
            reason = f"its node or its process is gone ({type(error).__name__})"
            self._inbox.put((self, Died(task=None, reason=reason)))

    def open(self) -> None:
        """Let it open the run."""
        self.send(self._order)

    def send(self, message: Order) -> None:
        """Send it a message; does nothing if it has just died."""
        self._actor.send.options(concurrency_group="send").remote(message.model_dump_json())

    def close_input(self) -> None:
        """Ask it to end."""
        self._actor.close.options(concurrency_group="send").remote()

    def end(self, at_once: bool) -> None:
        """End it."""
        import ray

        ray.kill(self._actor)


class RayLauncher:
    """Starts workers on the nodes of a cluster: one per GPU, or one per node if the search runs on CPUs.

    Raises InputError if no cluster answers, or a node does not see what the search needs.
    """

    def __init__(self, folder: RunFolder, config: SearchConfig, address: str) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise InputError("--cluster needs ray: pip install 'vessel-nas[ray]'") from error
        self._ray, self._folder = ray, RunFolder(folder.path.absolute())
        self._remote: Any = ray.remote
        try:
            _knock(address)
            with chdir(sys.prefix):  # Ray lets its workers import from the current folder, which may be a stranger's
                ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True)
        except (OSError, ValueError, RuntimeError) as error:
            # Ray takes 127.0.0.1 for the machine's name in its network, so it must be another loopback address.
            raise InputError(
                f"no Ray cluster answers at {address}; `ray start --head --node-ip-address=127.0.0.2` starts one that "
                "this machine alone can reach"
            ) from error
        list_nodes: Any = ray.nodes
        self._nodes = [node for node in list_nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not self._nodes:
            raise InputError(f"no node of the cluster at {address} has a CPU for a worker")
        gpus = sum(int(node["Resources"].get("GPU", 0)) for node in self._nodes)
        self._on_gpu = gpus > 0 and config.device != "cpu"
        self._count = gpus if self._on_gpu else len(self._nodes)
        needed = [self._folder.path, *([config.data.root] if config.data.root is not None else [])]
        self._check_nodes([str(path.absolute()) for path in needed])

    def _check_nodes(self, paths: list[str]) -> None:
        """Check that every node sees the same paths and runs the same program."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        look = self._ray.remote(_look)
        asked = [
            look.options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(paths)
            for node in self._nodes
        ]
        try:
            answers = self._ray.get(asked, timeout=_START_SECONDS)
        except self._ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[-1]
            raise InputError(
                f"a node of the cluster cannot run this program ({first}); install it on every node"
            ) from error
        own = program_version()
        for name, version, unseen in answers:
            if unseen:
                raise InputError(f"node {name} does not see {', '.join(unseen)}; put it where every node can see it")
            if version != own:
                raise InputError(
                    f"node {name} has version {version} of this program and the driver has {own}; install the same"
                )

    def devices(self) -> list[str]:
        """One device name per worker. Ray shows each actor only its own GPU."""
        return ["cuda:0" if self._on_gpu else "cpu"] * self._count

    def threads(self, workers: int) -> int:
        """CPU threads for each worker, if there are this many: as many as the smallest node has for its share of them.

        Raises InputError if the cluster has no room for all: Ray would silently let the rest wait.
        """
        cpus = sum(int(node["Resources"]["CPU"]) for node in self._nodes)
        room, kind = (self._count, "GPUs") if self._on_gpu else (cpus, "CPUs")
        if workers > room:
            raise InputError(f"the cluster has {room} {kind}, one for each worker; --workers {workers} is too many")
        smallest = min(int(node["Resources"]["CPU"]) for node in self._nodes)
        return max(1, smallest // -(-workers // len(self._nodes)))  # on uneven nodes Ray places more on the larger

    def start(self, device: str, threads: int, log: Path, inbox: "queue.Queue[Received]") -> Worker:
        """Start a worker on the node with the most room; waits in Ray's queue if there is none."""
        # Groups of one thread each: messages to the worker stay in order while another thread waits for its own.
        relay = self._remote(concurrency_groups={"send": 1, "receive": 1})(_Relay)
        resources = {"num_gpus": 1, "num_cpus": 1} if self._on_gpu else {"num_cpus": threads}
        order = Open(run=str(self._folder.path), device=device, threads=threads, log=str(log.absolute()))
        actor = relay.options(scheduling_strategy="SPREAD", **resources).remote(order.model_dump_json())
        return RayWorker(actor, order, inbox)

    def close(self) -> None:
        """Let go of the cluster."""
        time.sleep(0.1)  # for the last messages of workers that were asked to end
        self._ray.shutdown()
