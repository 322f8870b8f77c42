"""Near duplicates: found as a comparison of all with all finds them."""

import numpy as np

from tl_toolkit.audit.near import MOST_BITS, group_near, pair_near


def plant(count, copies):
    """Random hashes and pictures; copies as (place, original, bits of the hash that differ)."""
    random = np.random.default_rng(0)
    hashes = [int(value) for value in random.integers(0, 2**63, count, dtype=np.uint64)]
    pictures = random.integers(0, 256, (count, 768), dtype=np.uint8)
    for place, original, bits in copies:
        hashes[place] = hashes[original]
        for bit in bits:
            hashes[place] ^= 1 << bit
        pictures[place] = pictures[original]
    return [f"{value:016x}" for value in hashes], [row.tobytes() for row in pictures]


def test_hashes_that_differ_in_up_to_five_bits_anywhere_are_found():
    random = np.random.default_rng(1)
    copies = [
        (100 + place, place, random.choice(64, place % 7, replace=False).tolist())
        for place in range(100)
    ]

    pairs = pair_near(*plant(200, copies))

    expected = [[first, second] for second, first, bits in copies if len(bits) <= MOST_BITS]
    assert pairs.tolist() == expected


def test_equal_hashes_of_other_pictures_are_no_pair():
    hashes, pictures = plant(40, [])

    assert pair_near([hashes[0]] * 40, pictures).tolist() == []


def test_a_copy_is_found_among_many_pictures_of_one_hash():
    hashes, pictures = plant(400, [(390, 7, [])])

    assert pair_near([hashes[0]] * 400, pictures).tolist() == [[7, 390]]


def test_brightness_and_contrast_make_no_other_picture():
    hashes, pictures = plant(3, [])
    dim = (np.frombuffer(pictures[0], np.uint8) * 0.5 + 40).astype(np.uint8).tobytes()

    assert pair_near([hashes[0], hashes[1], hashes[0]], [*pictures[:2], dim]).tolist() == [[0, 2]]


def test_pairs_join_to_groups_and_an_image_without_hash_is_in_none():
    hashes, pictures = plant(6, [(3, 1, [0, 1, 2]), (5, 3, [10, 11, 12])])
    hashes[2], pictures[2] = "", b""

    assert group_near(hashes, pictures) == [[1, 3, 5]]
