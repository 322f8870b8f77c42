"""Clusters of Ray whose nodes are groups of processes of this machine, and can be killed."""

import contextlib
import os
import tempfile
from pathlib import Path

from tl_toolkit.cluster.local import replaced_environment, start_environment


@contextlib.contextmanager
def ray_nodes(count, *, cpus=1):
    """Yields a connected cluster of so many nodes; no process of it is left behind."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tlt-ray-", dir="/tmp"))
        stack.enter_context(replaced_environment(start_environment() | {"RAY_TMPDIR": folder}))
        import ray
        from ray.cluster_utils import Cluster

        settings = {"num_cpus": cpus, "object_store_memory": 100 << 20}
        place = Path(folder, "ray")  # where Ray writes which cluster is the latest, too
        place.mkdir()
        head = {**settings, "include_dashboard": False, "temp_dir": str(place)}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        stack.callback(cluster.shutdown)
        for _ in range(count - 1):
            cluster.add_node(**settings)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        stack.callback(ray.shutdown)
        cluster.wait_for_nodes()
        yield cluster


def find_processes(word):
    """Returns the command lines of this machine's processes that hold a word, but for our own."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if word in line and int(folder.name) != os.getpid():
                found.append(line)
    return found
