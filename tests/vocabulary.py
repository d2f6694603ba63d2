"""Two models: one has every public layer in it, the other every block, each on a branch and with an output of its own.

What is on no branch is missing in `LAYERS` or `BLOCKS`; tests compare them with what the packages have.
"""

import keras

from keraslight import blocks, layers
from keraslight.preprocessing import Preprocessing

HEIGHT, WIDTH, CHANNELS = 12, 16, 8
SHAPE = (HEIGHT, WIDTH, CHANNELS)


def _unpool(x):
    maxima, places = layers.MaxPoolWithIndices2D(2, name="with_indices")(x)
    return layers.MaxUnpool2D(2, name="unpool")([maxima, places])


def _coordinates(x):
    strip = layers.CoordinatePooling(name="strip")(x)
    rows, columns = layers.CoordinateSplit(name="rows_columns")([strip, x])
    return keras.layers.Multiply(name="row_times_column")([rows, columns])


def _resized(x):
    small = keras.layers.MaxPooling2D(2, name="small")(x)
    return layers.ResizeLike(name="as_large_again")([small, x])


def _turns(x):
    x = layers.C4LiftingConv2D(3, name="lift")(x)
    x = layers.C4GroupConv2D(3, name="turn")(x)
    return layers.C4GroupPooling(name="turn_pool")(x)


def _codes(x):
    return layers.CodeDistance(5, name="codes")(keras.layers.GlobalAveragePooling2D(name="codes_mean")(x))


def _normalize(x):
    spec = Preprocessing((HEIGHT, WIDTH), mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.1))
    return layers.ImageNormalization(spec)(layers.ChannelSlice(0, 3, name="colors")(x))


def _standardize(x):
    spec = Preprocessing((HEIGHT, WIDTH), per_image=True)
    return layers.ImageStandardization(spec, name="standardize")(layers.ChannelSlice(0, 3, name="three")(x))


def _views(x):
    x = layers.ImageViews((0.75, 1.0), (0.0, 20.0), flip=True, name="views")(x)
    x = keras.layers.Softmax(name="views_scores")(keras.layers.GlobalAveragePooling2D(name="views_mean")(x))
    return layers.MergeViews(8, "log", name="merge")(x)


# The layers on a branch, and the branch.
LAYERS = {
    ("BatchNorm",): layers.BatchNorm,
    ("ChannelSlice",): lambda: layers.ChannelSlice(1, None, 2),
    ("ChannelStatistics",): layers.ChannelStatistics,
    ("CodeDistance",): lambda: _codes,
    ("ConditionalConv2D",): lambda: layers.ConditionalConv2D(4, experts=3, strides=2),
    ("DeformableConv2D",): lambda: layers.DeformableConv2D(4, modulated=True),
    ("DropPath",): lambda: layers.DropPath(0.1, seed=0),
    ("GRN",): layers.GRN,
    ("GroupedConv2D",): lambda: layers.GroupedConv2D(4, 3, groups=2, strides=2, dilation_rate=1),
    ("ImageNormalization",): lambda: _normalize,
    ("ImageStandardization",): lambda: _standardize,
    ("ImageViews", "MergeViews"): lambda: _views,
    ("LayerNorm",): layers.LayerNorm,
    ("LayerScale",): lambda: layers.LayerScale(0.5),
    ("LocalResponseNorm",): layers.LocalResponseNorm,
    ("MaxPoolWithIndices2D", "MaxUnpool2D"): lambda: _unpool,
    ("CoordinatePooling", "CoordinateSplit"): lambda: _coordinates,
    ("ResizeLike",): lambda: _resized,
    ("C4LiftingConv2D", "C4GroupConv2D", "C4GroupPooling"): lambda: _turns,
}

BLOCKS = {
    "activate": {"activation": "hard_silu"},
    "basic_block": {"channels": 6, "stride": 2},
    "batch_norm": {},
    "bottleneck_block": {"channels": 4, "stride": 2},
    "cbam": {"squeezed": 2},
    "channel_attention": {"squeezed": 2},
    "channel_shuffle": {"groups": 2},
    "conv": {"filters": 4, "kernel": 1, "stride": 2},
    "conv_bn": {"filters": 4, "kernel": 3, "groups": 2, "activation": "gelu"},
    "convnext_block": {"grn": True},
    "coordinate_attention": {"squeezed": 4},
    "dense_layer": {"growth": 3},
    "depthwise_bn": {"kernel": 5, "stride": 2, "activation": "silu"},
    "depthwise_separable": {"channels": 6, "stride": 2},
    "efficient_channel_attention": {},
    "fused_inverted_bottleneck": {"channels": 6, "expansion": 2, "stride": 2},
    "fused_mbconv": {"channels": 8, "expansion": 2},
    "ghost_bottleneck": {"channels": 6, "expanded": 12, "stride": 2, "squeezed": 4},
    "ghost_module": {"channels": 6, "activation": "relu"},
    "grouped_shuffle_unit": {"channels": 16, "groups": 2, "stride": 2},
    "inception": {"pointwise": 2, "middle": (2, 3), "wide": (2, 3), "pooled": 2},
    "inverted_residual": {"channels": 8, "expanded": 16, "squeezed": 4, "activation": "hard_silu"},
    "lightweight_block": {"channels": 6, "stride": 2},
    "max_pool": {"kernel": 3, "stride": 2},
    "max_pool_ceil": {"kernel": 3, "stride": 2},
    "max_pool_signed": {"kernel": 3, "stride": 2},
    "mbconv": {"channels": 8, "expansion": 2},
    "mobile_mqa": {"heads": 2, "key_dim": 4, "kv_stride": 2, "layer_scale": 0.5},
    "repvgg_block": {"channels": 8, "groups": 2, "gated": True},
    "sandglass": {"channels": 8, "reduced": 4},
    "scale_branch": {"layer_scale": 0.5},
    "separable_bn": {"channels": 6},
    "shuffle_down": {"channels": 12},
    "shuffle_plus_unit": {"channels": 12, "stride": 2, "attention": True, "activation": "hard_silu"},
    "shuffle_unit": {},
    "spatial_attention": {},
    "squeeze_excite": {"squeezed": 2, "gate": "hard_sigmoid"},
    "squeeze_excite_bn": {"squeezed": 4},
    "transition": {"channels": 4},
    "universal_inverted_bottleneck": {"channels": 8, "expansion": 2, "start": 3, "middle": 5, "layer_scale": 0.5},
    "xception_module": {"channels": (6, 10), "stride": 2},
}


def every_layer() -> keras.Model:
    """(B, *SHAPE) -> {the names on a branch, joined by `_`: its output}."""
    images = keras.Input(SHAPE, name="images")
    return keras.Model(images, {"_".join(names): make()(images) for names, make in LAYERS.items()})


def every_block() -> keras.Model:
    """(B, *SHAPE) -> {a block's name: its output}; `add_residual` joins two of them."""
    images = keras.Input(SHAPE, name="images")
    outputs = {}
    for name, arguments in BLOCKS.items():
        outputs[name] = getattr(blocks, name)(images, **arguments, name=f"its_{name}")
    outputs["add_residual"] = blocks.add_residual(
        images, outputs["scale_branch"], drop_path=0.1, name="its_add_residual"
    )
    return keras.Model(images, outputs)


MODELS = {"layers": every_layer, "blocks": every_block}
