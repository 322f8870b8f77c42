"""MixUp and CutMix: who is mixed with whom, how much, and what the image is then."""

import numpy as np
import pytest

from tl_toolkit.images.mixing import Mixer, mix_images

SIZE = (20, 30)


def test_partners_are_of_the_same_batch_and_each_is_one_once():
    partners = Mixer(7, mixup=0.2).sample(21, 8, 1).partners

    batches = [partners[:8], partners[8:16], partners[16:]]
    for start, batch in zip((0, 8, 16), batches, strict=True):
        assert sorted(batch) == list(range(start, start + len(batch)))
    assert (partners != np.arange(21)).sum() > 10


def test_what_is_mixed_depends_on_seed_and_epoch_alone():
    def draw(seed, epoch):
        mixes = Mixer(seed, mixup=0.2, cutmix=1.0, image_size=SIZE).sample(50, 8, epoch)
        return [mixes.partners.tolist(), mixes.shares.tolist(), mixes.boxes.tolist()]

    first = draw(1, 1)
    assert first == draw(1, 1)
    assert all(
        a != b for other in (draw(1, 2), draw(2, 1)) for a, b in zip(first, other, strict=True)
    )


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_of_mixup_are_of_the_beta_distribution(alpha):
    shares = Mixer(0, mixup=alpha).sample(20_000, 32, 1).shares

    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert shares.mean() == pytest.approx(0.5, abs=0.01)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.04)


def test_the_share_of_cutmix_is_what_the_box_leaves_of_the_image():
    mixes = Mixer(0, cutmix=1.0, image_size=SIZE).sample(2000, 32, 1)

    for share, (top, left, bottom, right) in zip(mixes.shares, mixes.boxes, strict=True):
        assert 0 <= top <= bottom <= 20 and 0 <= left <= right <= 30
        assert share == pytest.approx(1 - (bottom - top) * (right - left) / 600, abs=1e-6)
    assert 0.05 < mixes.shares.min() + 0.05 < 0.2 and mixes.shares.max() > 0.98


def test_of_both_each_image_gets_one_by_even_chances():
    mixes = Mixer(0, mixup=0.5, cutmix=0.5, image_size=SIZE).sample(2000, 32, 1)

    pasted = mixes.boxes.any(axis=1)
    assert 900 < pasted.sum() < 1100
    assert ((mixes.shares > 0) & (mixes.shares < 1))[~pasted].mean() > 0.95


def test_blended_images_are_the_weighted_sum_and_pasted_ones_hold_the_box():
    own = np.full((2, 4, 4, 3), 200, np.uint8)
    other = np.full((2, 4, 4, 3), 100, np.uint8)

    mixed = mix_images(
        own, other, np.array([0.25, 0.875], np.float32), np.array([[0, 0, 0, 0], [1, 2, 2, 4]])
    )

    assert (mixed[0] == 0.25 * 200 + 0.75 * 100).all()
    expected = np.full((4, 4, 3), 200.0)
    expected[1, 2:] = 100
    np.testing.assert_array_equal(mixed[1], expected)
