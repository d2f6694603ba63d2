"""What pruning for ARM processors costs: the families that run sparsely there, on the digits."""

import pytest

from keraslight import compress
from tests.compress import digit_models

# 80% of all 1x1 kernels zero, in blocks of four output channels, in 880 steps. docs/android.md has what that cost.
SPARSITY, EPOCHS, BATCH = 0.8, 20, 32
LOSS = 0.015 + 1 / 397  # and one image more on another processor
FAMILIES = ("EfficientNet", "GhostNet", "MobileNeXt", "MobileNetV1", "MobileNetV2", "MobileNetV3")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_four_fifths_of_zeros_cost_at_most_a_point_and_a_half(family, request):
    model = digit_models.trained(family, request.config.cache.mkdir("digit_models"))
    data = digit_models.batches(family, BATCH)
    pruned = compress.prune(model, data, sparsity=SPARSITY, policy="xnnpack", epochs=EPOCHS, verbose=0)
    assert compress.sparsity(pruned, policy="xnnpack").total >= SPARSITY
    side = model.input_shape[1]
    assert digit_models.accuracy(pruned, side) >= digit_models.accuracy(model, side) - LOSS
