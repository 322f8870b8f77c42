"""One of several hosts, all of them on this machine, each a process: TensorFlow connects once."""

import json
import sys

from tests.training.replicas import CASES, compare
from tl_toolkit.plan.hosts import parse_hosts
from tl_toolkit.training.hosts import connect
from tl_toolkit.training.meeting import meet


def main(addresses, index, *names):
    """Prints a row a case: the largest differences between one device and all hosts."""
    hosts = parse_hosts(addresses, int(index), {})
    with meet(hosts) as meeting:
        replicas = connect(hosts, meeting, None)
        rows = compare(replicas, names or CASES)
        meeting.finish()
    print(json.dumps({"cases": rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
