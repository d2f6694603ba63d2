import numpy as np
import pytest

from keraslight.errors import InvalidArgumentError
from keraslight.layers import ChannelSlice


@pytest.mark.parametrize(
    ("arguments", "wanted"), [((0, 3), [0, 1, 2]), ((3,), [3, 4, 5, 6]), ((1, None, 2), [1, 3, 5])]
)
def test_channel_slice(arguments, wanted):
    layer = ChannelSlice.from_config(ChannelSlice(*arguments).get_config())
    x = np.arange(14, dtype="float32").reshape(1, 2, 7)
    np.testing.assert_array_equal(np.asarray(layer(x)), x[..., wanted])
    assert layer.compute_output_shape((None, 2, 7)) == (None, 2, len(wanted))


def test_channel_slice_range():
    with pytest.raises(InvalidArgumentError, match="`stop` above it and `step` at least 1. Received: start=3, stop=3"):
        ChannelSlice(3, 3)
    with pytest.raises(InvalidArgumentError, match="below the number of channels. Received: start=9, 7 channels"):
        ChannelSlice(9).compute_output_shape((None, 7))
