"""Packed encoders: what is written is read again, whatever the shapes, and damage is refused."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minicoil.serving.bits import PackedNumbers, packed, packed_rows, row_bytes, widths_of
from minicoil.serving.factors import FactoredEncoders, load_factors, save_factors


def some_encoders(words, hidden, dim, seed=0):
    """Encoders (words + 1, hidden, dim) along falling directions, row 0 of zeros."""
    found = np.random.default_rng(seed).normal(size=(words + 1, hidden, dim))
    found *= (0.9 ** np.arange(hidden))[:, None]
    found[0] = 0
    return found.astype(np.float32)


@pytest.mark.parametrize("planes", [[8], [24, 8], [40, 16, 16, 8], [8] * 7, [5, 3, 1]])
@pytest.mark.parametrize("dim", [1, 3, 4, 8])
def test_numbers_come_back(planes, dim):
    """Odd numbers of any planes are unpacked as they were, for one word, some, and a table of words."""
    most = ((1 << widths_of(planes)) - 1)[:, None]
    rng = np.random.default_rng(dim)
    odd = (2 * rng.integers(0, most + 1, (9, planes[0], dim)) - most).astype(np.int8)
    rows = packed_rows(odd, np.array(planes))
    kept = PackedNumbers(rows, np.array(planes, np.int32), dim)
    assert rows.shape == (9, row_bytes(planes, dim))
    assert np.array_equal(kept[4], odd[4])
    assert np.array_equal(kept[np.array([[1, 1], [0, 8]])], odd[[[1, 1], [0, 8]]])


@pytest.mark.parametrize("shape", [(1, 16, 1), (3, 40, 4), (200, 384, 8), (50, 33, 2)])
def test_little_is_lost(shape):
    """Few words lose almost nothing, many a tenth; row 0 stays zeros, and directions stay."""
    encoders = some_encoders(*shape)
    found = packed(encoders)
    back = np.asarray(FactoredEncoders(found.projection, found.numbers, found.scales))
    assert found.lost < 0.15
    assert not back[0].any()
    lengths = np.linalg.norm(back, axis=1) * np.linalg.norm(encoders, axis=1)
    cosines = (back * encoders).sum(1)[1:] / lengths[1:]
    assert cosines.min() > 0.8
    assert cosines.mean() > 0.93


@pytest.mark.parametrize("wrong", ["planes", "rising", "cut", "kind", "scales"])
def test_damage_is_refused(tmp_path, wrong):
    """A file whose packed parts do not fit is refused when it is read."""
    found = packed(some_encoders(20, 64, 4))
    save_factors(tmp_path / "a", FactoredEncoders(found.projection, found.numbers, found.scales))
    tensors = load_file(tmp_path / "a")
    if wrong == "planes":
        tensors["planes"] = tensors["planes"] - 8
    elif wrong == "rising":
        tensors["planes"] = np.sort(tensors["planes"] + np.arange(len(tensors["planes"]), dtype=np.int32))
    elif wrong == "cut":
        tensors["packed"] = np.ascontiguousarray(tensors["packed"][:, 1:])
    elif wrong == "kind":
        tensors["packed"] = tensors["packed"].view(np.int8)
    else:
        tensors["scales"] = tensors["scales"][:-1]
    save_file(tensors, tmp_path / "a")
    with pytest.raises((ValueError, KeyError)):
        load_factors(tmp_path / "a")


def test_blocks_share_a_pseudo_inverse(monkeypatch):
    """It is made once for all blocks of words, and a block is coded as it is alone."""
    from minicoil.serving import bits

    made, real = [], bits.back_of
    monkeypatch.setattr(bits, "back_of", lambda projection: made.append(1) or real(projection))
    monkeypatch.setattr(bits, "BLOCK", 20)
    encoders, moment = some_encoders(50, 32, 4), np.diag(0.8 ** np.arange(32.0))
    found = packed(encoders, moment=moment)
    assert len(made) == 1
    root = bits.moment_roots(moment).root
    alone = bits.coded(bits.Rotation(found.projection, found.numbers.planes), encoders[20:40], root=root)
    assert np.array_equal(found.numbers[20:40], alone.numbers)
    assert np.array_equal(found.scales[20:40], alone.scales)
