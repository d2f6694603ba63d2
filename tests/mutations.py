"""Changes that break the code, each with the test that must notice it; `tests/mutate.py` makes them."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """A change that must make a test fail.

    Attributes:
        file: Path from the repository's root.
        old: Text that occurs exactly once in the file.
        new: What takes its place.
        test: The test that must fail, as pytest takes it.
    """

    file: str
    old: str
    new: str
    test: str


A, B, L, N = "keraslight/architectures/", "keraslight/blocks/", "keraslight/layers/", "keraslight/analysis/"
C, T, R, S = "keraslight/compress/", "keraslight/training/", "keraslight/rewrite/", "serving/keraslight_serving/"
TA, TB, TL, TN = "tests/architectures/", "tests/blocks/", "tests/layers/", "tests/analysis/"
TC, TT, TS = "tests/compress/", "tests/training/", "tests/serving/"

MUTATIONS = (
    # Constants of the papers
    Mutation(A + "alexnet.py", "alpha=1e-4,", "alpha=2e-5,", TA + "test_alexnet.py"),
    Mutation(A + "alexnet.py", "bias=2.0,", "bias=1.0,", TA + "test_alexnet.py"),
    Mutation(A + "alexnet.py", "Row(3, 384, groups=2)", "Row(3, 384)", TA + "test_alexnet.py"),
    Mutation(A + "googlenet.py", "alpha=1e-4 / 5", "alpha=1e-4", TA + "test_googlenet.py"),
    Mutation(A + "googlenet.py", '"stage1_block3": "aux2"', '"stage1_block2": "aux2"', TA + "test_googlenet.py"),
    Mutation(A + "googlenet.py", "AUXILIARY_DROPOUT = 0.7", "AUXILIARY_DROPOUT = 0.5", TA + "test_googlenet.py"),
    Mutation(
        A + "lenet.py", "(0, 1, 3, 4),\n    (1, 2, 4, 5)", "(1, 2, 4, 5),\n    (0, 1, 3, 4)", TA + "test_lenet.py"
    ),
    Mutation(A + "lenet.py", '"tanh", name="c1_act"', '"relu", name="c1_act"', TA + "test_lenet.py"),
    Mutation(
        A + "mobilenet_v4.py",
        "UIB(5, 3, 4, 512),\n        UIB(5, 5, 4, 512),\n        *3 * (UIB(5, 0, 4, 512),)",
        "UIB(5, 5, 4, 512),\n        UIB(5, 3, 4, 512),\n        *3 * (UIB(5, 0, 4, 512),)",
        "tests/weights/test_golden.py::test_logits_of_large_nets_equal_the_references",
    ),
    Mutation(
        A + "mobilenet_v3.py",
        "Row(3, 72, 24, False, RE, 2), Row(3, 88",
        "Row(3, 88, 24, False, RE, 2), Row(3, 72",
        TA + "test_mobilenet_v3.py",
    ),
    Mutation(A + "mobilenet_v3.py", "make_divisible(expanded / 4)", "expanded // 4", TA + "test_mobilenet_v3.py"),
    Mutation(A + "densenet.py", "(6, 12, 64, 48)", "(6, 12, 48, 64)", TA + "test_densenet.py"),
    Mutation(A + "repvgg.py", "if layer % 2 == 0 else 1", "if layer % 2 == 1 else 1", TA + "test_repvgg.py"),
    Mutation(A + "repvgg.py", "min(64, make", "min(96, make", TA + "test_repvgg.py"),
    # Layers and blocks
    Mutation(L + "grn.py", "return inputs + self.gamma", "return self.gamma", TL + "test_norms.py"),
    Mutation(L + "grn.py", "ops.sum(x * x, axis=(1, 2)", "ops.mean(x * x, axis=(1, 2)", TL + "test_norms.py"),
    Mutation(
        L + "local_response_norm.py",
        "self.alpha * total)",
        "self.alpha / self.size * total)",
        TA + "test_alexnet.py::test_local_response_norm_is_the_papers",
    ),
    Mutation(L + "drop_path.py", "(None, 1, 1, 1)", "(None, None, 1, 1)", TL + "test_layers.py"),
    Mutation(L + "unpooling.py", "better = value > best", "better = value >= best", TL + "test_unpooling.py"),
    Mutation(B + "inception.py", "AdaptiveAveragePooling2D(4", "AdaptiveAveragePooling2D(3", TA + "test_googlenet.py"),
    # Analysis
    Mutation(N + "receptive_field.py", "(v.size, h.size)", "(h.size, v.size)", TN + "test_receptive_field.py"),
    Mutation(N + "receptive_field.py", "margin = span // 2", "margin = span", TN + "test_receptive_field.py"),
    Mutation(
        N + "receptive_field.py",
        "+ span + 1 - side, 0) // 2",
        "+ span + 1 - side + 1, 0) // 2",
        TN + "test_receptive_field.py",
    ),
    Mutation(
        N + "receptive_field.py",
        "max(span + 1 - stride, 0) // 2 if",
        "max(span + 1 - stride, 0) if",
        TN + "test_receptive_field.py",
    ),
    Mutation(N + "formulas.py", "-(-filters // ghost_ratio)", "filters // ghost_ratio", TN + "test_formulas.py"),
    Mutation(
        N + "formulas.py",
        "channels * kernel**2 + channels * filters",
        "channels * kernel + channels * filters",
        TN + "test_formulas.py",
    ),
    Mutation(N + "lint.py", "self.access_bytes - self.least_bytes", "self.access_bytes", TN + "test_lint.py"),
    Mutation(N + "lint.py", "(self.operations - 1) * overhead", "self.operations * overhead", TN + "test_lint.py"),
    Mutation(
        N + "effective_field.py",
        "np.abs(gradient(center, image[None])[1][0])",
        "gradient(center, image[None])[1][0]",
        TN + "test_effective_field.py",
    ),
    # Rewrites and compression
    Mutation(
        R + "_fuse.py",
        "second.shape[0]) @ second + step.bias)",
        "second.shape[0]) @ second)",
        TC + "test_fuse_graph.py",
    ),
    Mutation(R + "_fuse.py", "(reader.unpadded or not np.any(folded[1]))", "True", TC + "test_fuse_graph.py"),
    Mutation(R + "_fuse.py", "> first.kernel.size + second.size", "> 1e9", TC + "test_fuse_graph.py"),
    Mutation(C + "_tfmot/pruning.py", "power=3", "power=1", TC + "test_pruning.py"),
    Mutation(C + "_tfmot/pruning.py", "power=3", "power=2", TC + "test_pruning.py"),
    Mutation(
        C + "pruning/callback.py",
        "end = max(int(self.end_fraction",
        "end = max(int(0.5 * self.end_fraction",
        TC + "test_pruning.py",
    ),
    Mutation(
        C + "pruning/settings.py",
        "min(share + min(0.5 / count, 0.01), max(share, 0.9999))",
        "share",
        TC + "test_pruning.py",
    ),
    Mutation(C + "_tfmot/quantizers.py", "DECAY = 0.99", "DECAY = 0.9", TC + "test_quantizers.py"),
    Mutation(
        C + "clustering/callback.py",
        "keep_zero = self.preserve_sparsity and zeros > 0",
        "keep_zero = False",
        TC + "test_clustering.py",
    ),
    # Pages of measured figures
    Mutation(
        "docs/compression.md",
        "| 12 epochs | 99.5 | 99.5",
        "| 99 epochs | 99.5 | 99.5",
        TC + "test_digits_matrix.py::test_the_page_has_every_family",
    ),
    Mutation(
        "docs/compression.md",
        "| 12 epochs | 99.5 | 99.5",
        "| 12 epochs | 99.5 | 12.3",
        TC + "test_digits_matrix.py::test_the_page_has_every_family",
    ),
    Mutation("docs/compression.md", "4241 KiB", "9 KiB", TC + "test_digits_matrix.py::test_the_page_has_every_family"),
    Mutation(
        "docs/litert.md",
        "1.8e-04 | 100.0",
        "1.8e-04 | 5.0",
        TC + "test_litert_families.py::test_the_page_has_every_family",
    ),
    Mutation("docs/litert.md", "4241 KiB", "1 KiB", TC + "test_litert_families.py::test_the_page_has_every_family"),
    # Training and images
    Mutation(T + "_trainer.py", "if len(v.shape) <= 1]", "if len(v.shape) <= 4]", TT + "test_trainer.py"),
    Mutation(
        T + "_trainer.py",
        "ClassificationLoss(recipe.label_smoothing,",
        "ClassificationLoss(0.0,",
        TT + "test_trainer.py",
    ),
    Mutation(T + "_data.py", "seed=tf.stack([seed, epoch])", "seed=tf.stack([seed, seed])", TT + "test_data.py"),
    Mutation(
        T + "_data.py", "tf.stack([tf.constant(seed, tf.int64), step])", "tf.stack([step, step])", TT + "test_data.py"
    ),
    Mutation("keraslight/preprocessing.py", "/ self.crop_pct)", "* self.crop_pct)", "tests/test_preprocessing.py"),
    Mutation("keraslight/preprocessing.py", "antialias=True", "antialias=False", "tests/test_preprocessing.py"),
    Mutation(
        "keraslight/_image_files.py", "[0.299, 0.587, 0.114]", "[0.114, 0.587, 0.299]", "tests/test_preprocessing.py"
    ),
    # Weights
    Mutation(
        "keraslight/weights/loader.py",
        "w.transpose(2, 3, 0, 1)",
        "w.transpose(3, 2, 0, 1)",
        "tests/weights/test_loader.py",
    ),
    Mutation(
        "keraslight/weights/loader.py", "np.float32(3 / channels)", "np.float32(1.0)", "tests/weights/test_loader.py"
    ),
    # Server and client
    Mutation(
        S + "server/telemetry/tfrecord.py", "crc >> 15 | crc << 17", "crc >> 17 | crc << 15", TS + "test_request_log.py"
    ),
    Mutation(S + "server/running/batching.py", "array[end - size : end]", "array[:size]", TS + "test_batching.py"),
    Mutation(
        S + "server/running/batching.py", "if size >= rows), rows)", "if size > rows), rows)", TS + "test_batching.py"
    ),
    Mutation(S + "client/_retry.py", "2 ** (len(sent) - 1)", "2 ** len(sent)", TS + "test_client_calls.py"),
    Mutation(
        S + "client/_retry.py",
        "min(self._left + self._refill, self._most)",
        "self._left + self._refill",
        TS + "test_client_calls.py",
    ),
    Mutation(S + "client/_endpoints.py", "_TROUBLES = 3", "_TROUBLES = 4", TS + "test_client_calls.py"),
)
