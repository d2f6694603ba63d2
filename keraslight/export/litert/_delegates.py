"""Operators that a phone's accelerators don't support.

A delegate runs what it supports; the rest runs on the CPU, and each switch between them costs a copy. NNAPI is
deprecated since Android 15, but older phones reach their NPU with it. LiteRT has a checker for the GPU delegate
(`tf.lite.experimental.Analyzer`), but in TensorFlow 2.21 it reports every file as compatible, even with TOPK_V2.

Sources, TensorFlow's own tests of a node, read in November 2026: `CheckGpuDelegateCompatibility` in
tensorflow/lite/tools/versioning/gpu_compatibility.cc, and `NNAPIDelegateKernel::Validate` in
tensorflow/lite/delegates/nnapi/nnapi_delegate.cc for Android 11 (API level 30, NNAPI 1.3).
"""

from collections.abc import Iterable


def operator_names(text: str) -> frozenset[str]:
    """The names in a text, which keeps long lists short."""
    return frozenset(text.split())


GPU_OPERATORS = operator_names(
    """ABS ADD ADD_N ATAN2 AVERAGE_POOL_2D BATCH_MATMUL CAST CEIL CONCATENATION CONV_2D COS CUMSUM DENSIFY
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FLOOR FLOOR_DIV
    FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND
    LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU
    QUANTIZE REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE
    STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV"""
)
NNAPI_OPERATORS = operator_names(
    """ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_TO_SPACE_ND CAST CONCATENATION CONV_2D DENSIFY DEPTHWISE_CONV_2D
    DEPTH_TO_SPACE DEQUANTIZE DIV ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FULLY_CONNECTED GATHER GREATER
    GREATER_EQUAL HARD_SWISH HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL
    LOCAL_RESPONSE_NORMALIZATION LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX LSH_PROJECTION LSTM
    MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL NEG NOT_EQUAL PACK PAD PADV2 POW PRELU QUANTIZE REDUCE_ANY REDUCE_MAX
    REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RNN RSQRT SELECT SIN
    SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SQRT SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TILE TOPK_V2
    TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNIDIRECTIONAL_SEQUENCE_RNN
    BIDIRECTIONAL_SEQUENCE_LSTM"""
)
_NNAPI_FLOAT_ONLY = operator_names("ABS DIV ELU EXP LOG LOG_SOFTMAX NEG POW REDUCE_PROD RSQRT SIN SQRT SUM")
_FLOATS = frozenset({"FLOAT32", "FLOAT16"})
_NUMBERS = _FLOATS | {"INT8", "UINT8", "INT32"}
_LARGEST_RANK = 4


def gpu_problem(kind: str, dtypes: Iterable[str], rank: int) -> str:
    """Why the GPU delegate leaves an operator to the CPU, or "" if it supports it.

    Dtypes, such as `"FLOAT32"`, and `rank`, the largest number of axes, are those of its inputs and outputs.
    """
    return _common_problem(dtypes, rank) if kind in GPU_OPERATORS else "not supported"


def nnapi_problem(kind: str, dtypes: Iterable[str], rank: int) -> str:
    """As `gpu_problem`, for the NNAPI delegate on Android 11 or later; the first dtype is the first input's."""
    dtypes = tuple(dtypes)
    if kind not in NNAPI_OPERATORS:
        return "not supported"
    if kind in _NNAPI_FLOAT_ONLY and dtypes[0] not in _FLOATS:
        return "floats only"
    return _common_problem(dtypes, rank)


def _common_problem(dtypes: Iterable[str], rank: int) -> str:
    if odd := sorted(set(dtypes) - _NUMBERS):
        return f"no {', '.join(odd)}"
    return f"{rank} axes" if rank > _LARGEST_RANK else ""
