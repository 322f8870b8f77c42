"""One of several hosts, all of them on this machine, each a process: TensorFlow connects once."""

import json
import os
import sys

from tests.training.replicas import CASES, compare
from tl_toolkit.errors import HostError
from tl_toolkit.plan.hosts import parse_hosts
from tl_toolkit.training.hosts import connect
from tl_toolkit.training.meeting import meet

WAIT = 60
"""Seconds: until another process has come, and then until TensorFlow gives one up."""


def leave(hosts):
    """Ends this process after all hosts have begun to connect, and before it has."""
    with meet(hosts) as meeting:
        meeting.gather(hosts.wait_seconds)
        os._exit(9)


def stay(hosts):
    """Connects with a process that leaves; prints the error, and ends as a command does."""
    try:
        with meet(hosts) as meeting:
            connect(hosts, meeting, None)
    except HostError as error:
        print(error)
        sys.exit(error.exit_code)


def main(addresses, index, *names):
    """Prints a row a case: the largest differences between one device and all hosts."""
    if names in (("leave",), ("stay",)):
        hosts = parse_hosts(addresses, int(index), {}, wait_seconds=WAIT)
        return leave(hosts) if names == ("leave",) else stay(hosts)
    hosts = parse_hosts(addresses, int(index), {})
    with meet(hosts) as meeting:
        replicas = connect(hosts, meeting, None)
        rows = compare(replicas, names or CASES)
        meeting.finish()
    print(json.dumps({"cases": rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
