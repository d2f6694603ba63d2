"""Small nets trained on digits lose at most half a point in the int8 file after three epochs."""

import digit_models
import pytest

from keraslight import compress
from keraslight.export.litert import to_litert


@pytest.mark.parametrize("family", digit_models.RECIPES)
def test_quantization_aware_training_keeps_the_accuracy(family, tmp_path, request):
    model = digit_models.trained(family, request.config.cache.mkdir("digit_models"))
    side = model.input_shape[1]
    before = digit_models.accuracy(model, side)
    assert before >= 0.97
    quantized = compress.train_quantized(model, digit_models.digits(side)[0], epochs=3, batch_size=64, verbose=0)
    path = to_litert(quantized, tmp_path / "int8.tflite")
    assert digit_models.file_accuracy(path, side) >= before - 0.005
    back = compress.quantized_weights_to_keras(quantized, model)
    assert digit_models.accuracy(back, side) >= before - 0.01
