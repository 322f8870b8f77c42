"""Heat maps laid over images."""

import base64
import io

import numpy as np
from PIL import Image

from tl_toolkit.reports.heat import draw_heat


def test_red_is_where_the_heat_is():
    pixels = np.full((32, 64, 3), 128, np.uint8)
    heat = np.zeros((32, 64))
    heat[:, 32:] = 1

    uri = draw_heat(pixels, heat)

    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), int)
    assert picture.shape == (64, 128, 3)  # as wide as a thumbnail
    redness = picture[..., 0] - picture[..., 1]
    assert abs(redness[:, :48]).max() < 8  # of JPEG
    assert redness[:, 80:].min() > 100
