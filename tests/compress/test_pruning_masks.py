"""The masks of `_tfmot.pruning` against the library's own, weight by weight."""

import numpy as np
import pytest
import tensorflow as tf

RNG = np.random.default_rng(0)
KERNELS = {
    "convolution": RNG.normal(size=(3, 3, 8, 12)),
    "dense": RNG.normal(size=(40, 10)),
    "ties": RNG.integers(-3, 4, size=(3, 3, 8, 12)),  # most weights equal others: whole groups stay or go
    "mostly zero": RNG.normal(size=(40, 10)) * (RNG.uniform(size=(40, 10)) < 0.1),
    "one weight": RNG.normal(size=(1, 1, 1, 1)),
}


@pytest.fixture(scope="module")
def pruning():
    """The door to the library, which must not open for the tests of other files while they are collected."""
    from keraslight.compress._tfmot import pruning

    return pruning


def variables(kernel, dtype="float32"):
    kernel = tf.Variable(tf.cast(kernel, dtype))
    return [(kernel, tf.Variable(tf.ones_like(kernel)), tf.Variable(tf.zeros((), dtype)))]


def both(pruning, kernel, sparsity, block_size=(1, 1), dtype="float32"):
    """(mask, threshold) of the library and of ours."""
    schedule = pruning.pruning_schedule.ConstantSparsity(sparsity, begin_step=1, frequency=1)
    results = []
    for kind in (pruning.pruning_impl.Pruning, pruning.LinearTimePruning):
        rows = variables(kernel, dtype)
        kind(lambda: tf.constant(1), rows, schedule, block_size, "AVG").conditional_mask_update()
        results.append([value.numpy() for value in rows[0][1:]])
    return results


@pytest.mark.parametrize("sparsity", [0.001, 0.25, 0.5, 0.7, 0.999])
@pytest.mark.parametrize("kernel", KERNELS)
def test_same_masks_and_thresholds(pruning, kernel, sparsity):
    (mask, threshold), (our_mask, our_threshold) = both(pruning, KERNELS[kernel], sparsity)
    np.testing.assert_array_equal(our_mask, mask)
    assert our_threshold == threshold


def test_same_masks_of_blocks(pruning):
    (mask, _), (our_mask, _) = both(pruning, KERNELS["dense"], 0.6, block_size=(4, 2))
    np.testing.assert_array_equal(our_mask, mask)
    assert 0 < mask.mean() < 1


def test_blocks_begin_at_the_first_weight(pruning):
    """The library centers those that don't divide a side: here it would begin with a block of two."""
    (theirs, _), (ours, _) = both(pruning, KERNELS["dense"], 0.6, block_size=(4, 3))
    means = [[np.abs(KERNELS["dense"][r : r + 4, c : c + 3]).mean() for c in range(0, 10, 3)] for r in range(0, 40, 4)]
    kept = np.asarray(means) >= np.sort(np.ravel(means))[-16]  # 40% of 40 blocks
    np.testing.assert_array_equal(ours, np.kron(kept, np.ones((4, 3)))[:, :10])
    assert (theirs != ours).any()


def test_same_masks_in_half_precision(pruning):
    (mask, _), (our_mask, _) = both(pruning, KERNELS["dense"], 0.6, dtype="float16")
    np.testing.assert_array_equal(our_mask, mask)
    assert our_mask.dtype == np.float16


def test_weights_are_masked_when_the_masks_change_and_after_every_step(pruning):
    kernel = tf.Variable(tf.cast(KERNELS["dense"], "float32"))
    schedule = pruning.pruning_schedule.ConstantSparsity(0.5, begin_step=2, end_step=2, frequency=1)
    masks = pruning.Masks([([kernel], schedule)])
    zeros = []
    for _ in range(3):
        masks.advance()
        zeros.append(int(np.sum(kernel.numpy() == 0)))
        kernel.assign_add(tf.ones_like(kernel) * 1e-3)  # as an optimizer's step
        masks.apply()
        zeros.append(int(np.sum(kernel.numpy() == 0)))
    assert zeros == [0, 0, 200, 200, 200, 200]
