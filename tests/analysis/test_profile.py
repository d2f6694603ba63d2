import io
import sys

import keras
import pytest
from keras import layers, ops
from rich.console import Console

import keraslight
from keraslight.analysis import LayerCost, count_macs, count_parameters, profile
from keraslight.blocks.attention import squeeze_excite
from keraslight.blocks.mobile_mqa import mobile_mqa
from keraslight.errors import InvalidArgumentError, MissingDependencyError


def mixed_model(side=8, open_sides=False):
    """Branches, a dilation, a shared layer and a nested model."""
    shape = (None, None) if open_sides else (side, side)
    inside = keras.Input((*((None, None) if open_sides else (4, 4)), 4))
    inner = keras.Model(inside, layers.Conv2D(2, 1, use_bias=False, name="conv")(inside), name="inner")
    images = keras.Input((*shape, 3), name="images")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(images)
    x = layers.BatchNormalization(name="bn")(x)
    dilated = layers.Conv2D(4, 3, dilation_rate=2, name="dilated")(x)
    x = layers.Add(name="add")([dilated, layers.MaxPooling2D(2, name="pool")(x)])
    shared = layers.Dense(4, use_bias=False, name="shared")
    x = layers.GlobalAveragePooling2D(name="mean")(inner(shared(shared(x))))
    x = layers.Dropout(0.5, name="drop")(x)
    return keras.Model(images, layers.Dense(3, name="classifier")(x), name="mixed")


EXPECTED = {  # type, calls, output, parameters, MACs, bytes of activations, bytes moved
    "images": ("InputLayer", 1, (8, 8, 3), 0, 0, 768, 0),
    "stem": ("Conv2D", 1, (8, 8, 4), 27 * 4 + 4, 64 * 4 * 27, 1024, 768 + 1024 + 112 * 4),
    "bn": ("BatchNormalization", 1, (8, 8, 4), 8, 0, 1024, 1024 + 1024 + 16 * 4),  # it reads the statistics too
    "dilated": ("Conv2D", 1, (4, 4, 4), 36 * 4 + 4, 16 * 4 * 36, 256, 1024 + 256 + 148 * 4),
    "pool": ("MaxPooling2D", 1, (4, 4, 4), 0, 0, 256, 1024 + 256),
    "add": ("Add", 1, (4, 4, 4), 0, 0, 256, 3 * 256),
    "shared": ("Dense", 2, (4, 4, 4), 16, 2 * 16 * 4 * 4, 2 * 256, 2 * (256 + 256 + 16 * 4)),
    "inner/conv": ("Conv2D", 1, (4, 4, 2), 8, 16 * 2 * 4, 128, 256 + 128 + 8 * 4),
    "mean": ("GlobalAveragePooling2D", 1, (2,), 0, 0, 8, 128 + 8),
    "drop": ("Dropout", 1, (2,), 0, 0, 0, 0),
    "classifier": ("Dense", 1, (3,), 9, 6, 12, 8 + 12 + 9 * 4),
}


def test_by_hand():
    model = mixed_model()
    result = profile(model)
    assert {row.name: tuple(row)[1:] for row in result.rows} == EXPECTED
    assert result.parameters == count_parameters(model)
    assert result.macs == count_macs(model)
    assert result.access_bytes == sum(row[6] for row in EXPECTED.values())
    assert result.rows[1].intensity == 6912 / 2240
    assert result.rows[0].intensity == 0
    assert (result.peak_bytes, result.peak_layer) == (2048, "bn")
    assert result.unknown == ()


def test_sizes_left_open():
    model = mixed_model(open_sides=True)
    with pytest.raises(InvalidArgumentError, match="give `input_shape`. Received: layer 'images'"):
        profile(model)
    assert {row.name: tuple(row)[1:] for row in profile(model, (8, 8, 3)).rows} == EXPECTED
    with pytest.raises(InvalidArgumentError, match="must agree with .* Received: \\(8, 8, 1\\)"):
        profile(model, (8, 8, 1))
    with pytest.raises(InvalidArgumentError, match="must agree with"):
        profile(mixed_model(), (9, 9, 3))


def test_peak_keeps_what_is_still_to_be_read():
    images = keras.Input((4, 4, 1))
    short = layers.Conv2D(4, 1, name="a")(images)  # 256 bytes, read again by the sum
    x = layers.Conv2D(8, 1, name="b")(short)  # 512
    x = layers.Conv2D(4, 1, name="c")(x)  # 256
    x = layers.Add()([x, short])
    result = profile(keras.Model(images, x))
    assert (result.peak_bytes, result.peak_layer) == (256 + 512 + 256, "c")
    result = profile(keras.Model(images, [x, images]))  # an output lives to the end
    assert result.peak_bytes == 64 + 256 + 512 + 256


def test_views_share_their_input_s_memory():
    images = keras.Input((4, 4, 1))
    x = layers.Conv2D(4, 1)(images)
    x = layers.Flatten(name="flat")(x)
    result = profile(keras.Model(images, layers.Dense(2, name="dense")(x)))
    assert (result.peak_bytes, result.peak_layer) == (64 + 256, "conv2d")
    flat = next(row for row in result.rows if row.name == "flat")
    assert flat.activation_bytes == flat.access_bytes == 0


def test_attention_and_several_inputs():
    a, b = keras.Input((None, 4), name="a"), keras.Input((7, 4), name="b")
    model = keras.Model([a, b], layers.Dot(axes=(2, 2), name="dot")([a, b]))
    row = profile(model, [(5, 4), (7, 4)]).rows[-1]
    assert row.macs == 5 * 7 * 4
    assert row.access_bytes == 4 * (20 + 28 + 35)


def test_attention_by_hand():
    """Mobile MQA on 4x4x6 with 2 heads of 3 channels, key and value from 2x2, and squeeze-and-excitation behind it."""
    images = keras.Input((4, 4, 6), name="images")
    x = mobile_mqa(images, heads=2, key_dim=3, kv_stride=2, name="mqa")
    x = squeeze_excite(x, 2, name="se")
    rows = {row.name: row for row in profile(keras.Model(images, x)).rows}
    assert {name: row.macs for name, row in rows.items() if row.macs} == {
        "mqa_query": 16 * 6 * 6,
        "mqa_key_down": 4 * 6 * 9,
        "mqa_key": 4 * 6 * 3,
        "mqa_value_down": 4 * 6 * 9,
        "mqa_value": 4 * 6 * 3,
        "mqa_scores": 32 * 4 * 3,  # 16 places of 2 heads against 4 keys
        "mqa_context": 32 * 4 * 3,
        "mqa_output": 16 * 6 * 6,
        "se_reduce": 6 * 2,
        "se_expand": 2 * 6,
    }
    assert rows["mqa_attention"].activation_bytes == 4 * 32 * 4
    assert rows["mqa_attention"].access_bytes == 2 * 4 * 32 * 4
    assert rows["mqa_query_rows"].activation_bytes == 0  # the query under another shape
    assert rows["se_scale"].access_bytes == 4 * (96 + 6 + 96)
    # parameters: norm, query, key and value each with a depthwise kernel and its norm, output; the two of the gate
    assert sum(row.parameters for row in rows.values()) == 12 + 36 + 2 * (54 + 12 + 18) + 36 + (12 + 2) + (12 + 6)


def test_everything_at_once_with_open_sides():
    """Branches, a shared layer, attention, a nested model and a dilation, all of sizes that come with the question."""
    inside = keras.Input((None, None, 4))
    gated = squeeze_excite(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(inside), 2, name="se")
    inner = keras.Model(inside, gated, name="inner")
    images = keras.Input((None, None, 4), name="images")
    shared = layers.Conv2D(4, 3, dilation_rate=2, padding="same", use_bias=False, name="shared")
    left = inner(shared(images))
    right = layers.AveragePooling2D(2, name="half")(shared(inner(left)))
    x = layers.Concatenate(name="join")([layers.MaxPooling2D(2, name="pool")(left), right])
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    result = profile(keras.Model(images, layers.Dense(2, name="classifier")(x)), (6, 8, 4))
    assert result.unknown == ()
    assert {row.name: (row.calls, row.parameters, row.macs) for row in result.rows if row.parameters or row.macs} == {
        "shared": (2, 9 * 16, 2 * 48 * 9 * 16),
        "inner/depthwise": (2, 40, 2 * 48 * 36),
        "inner/se_reduce": (2, 10, 2 * 8),
        "inner/se_expand": (2, 12, 2 * 8),
        "classifier": (1, 18, 16),
    }
    rows = {row.name: row for row in result.rows}
    assert rows["join"].output == (3, 4, 8)
    assert rows["join"].access_bytes == 2 * 4 * 12 * 8
    assert rows["inner/se_scale"].access_bytes == 2 * 4 * (192 + 4 + 192)
    # In the second call of the nested model: `left`, which the pooling still reads, the depthwise map and the product.
    assert (result.peak_bytes, result.peak_layer) == (4 * (3 * 192 + 4), "inner/se_scale")


@pytest.mark.parametrize("structure", [list, dict])
@pytest.mark.parametrize("way", ["list", "dict", "keyword"])
def test_nested_models_of_several_inputs(structure, way):
    a, b = keras.Input((4,), name="z"), keras.Input((3,), name="a")
    both = [layers.Dense(5, name="four")(a), layers.Dense(7, name="three")(b)]
    inner = keras.Model([a, b] if structure is list else {"z": a, "a": b}, layers.Concatenate()(both))
    x, y = keras.Input((4,)), keras.Input((3,))
    given = [x, y] if way == "list" and structure is list else {"z": x, "a": y}
    result = profile(keras.Model([x, y], inner(inputs=given) if way == "keyword" else inner(given)))
    moved = {row.name.split("/")[-1]: row.access_bytes for row in result.rows}
    assert moved["four"] == 4 * (4 + 5 + 25)
    assert moved["three"] == 4 * (3 + 7 + 28)


def test_half_precision_halves_activations():
    images = keras.Input((4, 4, 1))
    model = keras.Model(images, layers.Conv2D(4, 1, dtype="mixed_float16")(images))
    assert profile(model).rows[-1].activation_bytes == 4 * 4 * 4 * 2


@pytest.mark.parametrize("name", ["mobilenet_v4_hybrid_medium", "shufflenet_v1_g3_100", "efficientnet_b0"])
def test_zoo_models(name):
    model = keraslight.create_model(name, input_shape=(64, 64, 3))
    result = profile(model)
    assert result.unknown == ()
    assert result.parameters == count_parameters(model)
    assert result.macs == count_macs(model)
    assert [row.name for row in result.by_stage()].count("stage2") == 1
    assert sum(row.macs for row in result.by_stage()) == result.macs
    assert sum(row.access_bytes for row in result.by_block()) == result.access_bytes
    assert max(row.activation_bytes for row in result.rows) < result.peak_bytes < result.activation_bytes


class Square(layers.ReLU):
    def call(self, inputs):
        return ops.matmul(inputs, inputs)


def test_unknown_types_are_listed():
    images = keras.Input((4, 4, 4))
    x = layers.Conv2DTranspose(4, 3, padding="same")(images)
    x = layers.EinsumDense("abcd,de->abce", (4, 4, 4))(x)
    x = Square()(x)
    x = ops.matmul(x, ops.sort(x))
    x = ops.relu(x + 1)
    result = profile(keras.Model(images, x))
    assert result.unknown == ("Square", "ops.Sort")
    assert "Unknown multiply-adds, not counted: Square, ops.Sort." in str(result)


def test_a_nested_model_without_a_graph_is_one_unknown_layer():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    images = keras.Input((3,))
    result = profile(keras.Model(images, Own()(images)))
    assert result.unknown == ("Own",)
    assert result.parameters == 8
    with pytest.warns(UserWarning, match="not counted: Own"):
        assert count_macs(keras.Model(images, Own()(images))) == 0
    with pytest.raises(InvalidArgumentError, match="must be a functional Keras 3 model .* of class Own"):
        profile(Own())


def test_as_text():
    result = profile(mixed_model())
    lines = str(result).splitlines()
    assert lines[0] == "mixed"
    assert lines[1].split()[:5] == ["layer", "type", "output", "parameters", "MACs"]
    assert lines[3].split() == ["stem", "Conv2D", "8x8x4", "112", "6,912", "1.0", "2.2", "3.09"]
    assert "Dense, 2 calls" in lines[8]
    assert lines[-2].split()[0] == "total"
    assert lines[-1] == "Peak activation memory: 2.0 KiB, at bn."


@pytest.mark.parametrize(("by", "name"), [("layer", "inner/conv"), ("block", "dilated"), ("stage", "classifier")])
def test_as_table(by, name):
    Console(width=200, file=(file := io.StringIO())).print(profile(mixed_model()).table(by))
    text = file.getvalue()
    assert name in text
    assert "9,862" in text  # 6912 + 2304 + 512 + 128 + 6


def test_a_table_has_rows_of_layers_blocks_or_stages():
    with pytest.raises(InvalidArgumentError, match='`by` must be "layer", "block" or "stage". Received: by=\'row\''):
        profile(mixed_model()).table("row")


def test_as_html():
    page = profile(mixed_model())._repr_html_()
    assert page.count("<tr>") == page.count("</tr>") == 1 + len(EXPECTED) + 1
    assert '<td style="text-align:right">6,912</td>' in page


def test_html_is_escaped():
    images = keras.Input((2,), name="a<b")
    assert "a&lt;b" in profile(keras.Model(images, layers.Dense(1)(images)))._repr_html_()


def test_pandas():
    frame = profile(mixed_model()).to_pandas()
    assert list(frame.columns) == [*LayerCost._fields, "intensity"]
    assert list(frame["name"]) == list(EXPECTED)
    assert frame["macs"].sum() == 9_862
    assert frame.dtypes["macs"] == frame.dtypes["access_bytes"] == "int64"
    assert frame.set_index("name").loc["stem", "intensity"] == 6912 / 2240
    assert frame.groupby("kind")["parameters"].sum()["Dense"] == 16 + 9


def test_pandas_is_asked_for_by_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match=r"to_pandas needs pandas: pip install 'keraslight\[analysis\]'"):
        profile(mixed_model()).to_pandas()
