"""The server under load: no request is lost, none fails, and memory does not grow."""

import http.client
import json
import resource
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

import tl_toolkit as tl
from tests.serving.models import draw_image

CLIENTS = 32
PREDICT = "/v1/models/photos:predict"


def read_memory():
    """Pages of this process that are in memory now, in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


@pytest.mark.slow
def test_clients_lose_no_answer_and_bad_ones_disturb_none(small_model, encode):
    """32 clients for 20 seconds; each eighth request is wrong in one of four ways."""

    def row(image):
        return json.dumps({"signature_name": "serve_bytes", "instances": [encode(image)]}).encode()

    good = [(row(draw_image(red)), red / 255) for red in (0, 51, 255)]
    bad = [row(b"no image"), row(draw_image(side=9)), b"{", b'{"instances":[[1]]}']
    codes, memory, stop = Counter(), [], threading.Event()

    def ask(number):
        connection = http.client.HTTPConnection(host, int(port), timeout=300)
        while not stop.is_set():
            number += 1
            body, red = (bad[number // 8 % 4], None) if number % 8 == 0 else good[number % 3]
            connection.request("POST", PREDICT, body)
            response = connection.getresponse()
            answer = json.loads(response.read())
            codes[(red is None, response.status)] += 1
            if red is not None:
                (prediction,) = answer["predictions"]
                assert prediction["probabilities"][1] == pytest.approx(red, abs=1e-6)
        connection.close()

    with tl.serve(small_model, port=0, progress=False) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(ask, number) for number in range(CLIENTS)]
            try:
                for _ in range(4):
                    time.sleep(5)
                    memory.append(read_memory())
            finally:
                stop.set()
            for client in clients:
                client.result()

    assert set(codes) == {(False, 200), (True, 400)}
    assert codes[(False, 200)] > 6 * codes[(True, 400)] > 0
    assert memory[-1] - memory[0] < 30
