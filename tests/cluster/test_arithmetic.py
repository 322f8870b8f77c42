"""What a worker says of an arithmetic that is not the driver's."""

from tl_toolkit.runtime import count_threads, describe_arithmetic
from tl_toolkit.tuning.cluster_executor import compare_arithmetic


def test_other_threads_and_another_processor_are_named():
    arithmetic, threads = describe_arithmetic(), count_threads()

    assert compare_arithmetic(arithmetic, threads) == []
    (text,) = compare_arithmetic(arithmetic, threads + 3)
    assert f"workers compute with {threads} threads, and this process with {threads + 3}" in text
    assert f"search.resources.cpus={threads + 3}" in text
    (text,) = compare_arithmetic({**arithmetic, "cpu": "another"}, threads)
    assert text.startswith("a worker has another cpu than this process")
