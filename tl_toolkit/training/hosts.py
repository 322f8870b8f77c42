"""Replicas on several hosts, each in a process of its own, as one strategy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from tl_toolkit.errors import HostError, Problem, RecipeError
from tl_toolkit.keras_private import abort_collectives, limit_connecting
from tl_toolkit.plan.devices import DeviceChoice
from tl_toolkit.plan.hosts import Hosts
from tl_toolkit.training.devices import Replicas, choose_gpus
from tl_toolkit.training.meeting import Meeting, describe_loss

__all__ = ["HostReplicas", "connect", "naming_lost_hosts"]

_NOTICED_SECONDS = 10.0  # from a broken collective to the end of the connection that explains it
_GONE_SECONDS = 1.0  # to see a connection that has ended some time ago
_UNKNOWN = "a host is gone: TensorFlow lost its connection"


class HostReplicas(Replicas):
    """Splits each batch over the devices of all hosts.

    Each host has weights, optimizer and averages of its own, and changes them by the same sums.

    Args:
        strategy: Of all hosts.
        meeting: Their connection.
    """

    # Sums of two hosts belong together if they are of the same iteration of a call's loop; and how
    # many steps a call takes, hosts that write states and others would not agree on.
    takes_single_steps = True

    def __init__(self, strategy: tf.distribute.Strategy, meeting: Meeting) -> None:
        super().__init__(strategy)
        self._meeting = meeting

    def agree(self, values: Sequence[float]) -> tuple[float, ...]:
        """Returns the values of the first host.

        Args:
            values: Those of this one.
        """
        return tuple(
            np.frombuffer(self._meeting.share(np.array(values, np.float64).tobytes())).tolist()
        )


def connect(hosts: Hosts, meeting: Meeting, choice: DeviceChoice | None) -> HostReplicas:
    """Connects TensorFlow with that of the other hosts, for the life of this process.

    Args:
        hosts: The hosts.
        meeting: Their connection; it watches from now on whether a host is gone.
        choice: Of each host, the GPUs that train; None for all of them.

    Raises:
        RecipeError: TensorFlow has started in this process.
        HostError: A host is gone, or TensorFlow does not connect with it in time.
    """
    if choice is not None:
        choose_gpus(choice)
    # From here to the last connection TensorFlow holds the interpreter: no thread of ours could end
    # its waiting, which has no limit of its own. So all hosts begin together, with a limit.
    meeting.gather(hosts.wait_seconds)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(hosts.addresses)}),
        task_type="worker",
        task_id=hosts.index,
        rpc_layer="grpc",
    )
    try:
        limit_connecting(resolver.cluster_spec(), hosts.wait_seconds)
        strategy = tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver)
    except tf.errors.OpError as error:
        meeting.watch(lambda _: None)
        raise HostError(
            Problem(
                where="",
                what=meeting.find_lost(_GONE_SECONDS) or "TensorFlow has not connected the hosts",
                expected=f"Each host waits {hosts.wait_seconds:g} seconds for their connection.",
                hint="the same command again on all hosts; ports that are open between them",
            )
        ) from error
    except RuntimeError as error:
        raise RecipeError(
            Problem(
                where="--hosts",
                what="TensorFlow has started in this process",
                expected="It connects hosts before its first operation, or not at all.",
                hint="a new process; in a notebook, restart the kernel",
            )
        ) from error
    meeting.watch(_abort)
    return HostReplicas(strategy, meeting)


def _abort(text: str) -> None:
    """Ends the sums that wait for a host that is gone; else only its heartbeats would."""
    abort_collectives(tf.errors.UNAVAILABLE, text)


@contextlib.contextmanager
def naming_lost_hosts(meeting: Meeting) -> Iterator[None]:
    """Raises an error that names the host for TensorFlow's own, when one is gone in the block.

    Args:
        meeting: Their connection.

    Raises:
        HostError: A host is gone.
    """
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError,
            tf.errors.InternalError, tf.errors.DeadlineExceededError) as error:  # fmt: skip
        lost = meeting.find_lost(_NOTICED_SECONDS)
        if not lost and not re.search("[Cc]ollective|task:", str(error)):
            raise
        raise HostError(describe_loss(lost or _UNKNOWN)) from error
