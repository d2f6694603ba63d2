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
    # Augmentation
    Mutation(T + "_augmentation.py", "math.radians(self.rotate_degrees)", "0.0", TT + "test_augmentation.py"),
    Mutation(
        T + "_augmentation.py", "1.0 + draws[:, 1] * self.zoom", "1.0 + draws[:, 1] * 0.0", TT + "test_augmentation.py"
    ),
    Mutation(
        T + "_augmentation.py",
        "draws[:, 2] * self.shift * width",
        "draws[:, 2] * self.shift * height",
        TT + "test_augmentation.py",
    ),
    Mutation(
        T + "_augmentation.py",
        "(width - 1.0) / 2.0, (height - 1.0) / 2.0",
        "width / 2.0, height / 2.0",
        TT + "test_augmentation.py",
    ),
    Mutation(
        T + "_augmentation.py", "images = tf.clip_by_value(images, 0.0, 255.0)", "pass", TT + "test_augmentation.py"
    ),
    Mutation(
        T + "_augmentation.py",
        "draws[:, 4, None, None, None]",
        "draws[:, 1, None, None, None]",
        TT + "test_augmentation.py",
    ),
    Mutation(
        T + "_augmentation.py",
        "tf.where(draws[:, 5] < 0, -1.0, 1.0)",
        "tf.where(draws[:, 5] < 0.8, -1.0, 1.0)",
        TT + "test_augmentation.py",
    ),
    Mutation(
        T + "_augmentation.py",
        "tf.convert_to_tensor(seed) + 1",
        "tf.convert_to_tensor(seed)",
        TT + "test_augmentation.py",
    ),
    Mutation(T + "_augmentation.py", "fill_value=0.0", "fill_value=128.0", TT + "test_augmentation.py"),
    # Training
    Mutation(
        T + "_trainer.py",
        "warmup = recipe.warmup * steps",
        "warmup = 0",
        TT + "test_trainer.py::test_the_learning_rate_warms_up_and_decays_to_zero",
    ),
    Mutation(
        T + "_trainer.py",
        "recipe.learning_rate / (warmup + 1)",
        "0.0",
        TT + "test_settled.py::test_the_best_epoch_is_chosen_by_settled_batch_norms",
    ),
    Mutation(
        T + "_trainer.py",
        "recipe.epochs * steps - warmup",
        "recipe.epochs * steps",
        TT + "test_trainer.py::test_the_learning_rate_warms_up_and_decays_to_zero",
    ),
    Mutation(
        T + "_trainer.py",
        '(row["val_accuracy"], -row["val_loss"])',
        '(row["val_accuracy"], row["val_loss"])',
        TT + "test_trainer.py::test_it_learns_and_keeps_the_best_epoch",
    ),
    Mutation(
        T + "_trainer.py",
        'self.best["epoch"] >= patience',
        'self.best["epoch"] > patience',
        TT + "test_trainer.py::test_patience_stops_early_and_stays_stopped",
    ),
    Mutation(
        T + "_trainer.py",
        "if self.best is row:",
        "if True:",
        TT + "test_trainer.py::test_it_learns_and_keeps_the_best_epoch",
    ),
    Mutation(
        T + "_trainer.py",
        "settle(self._plain, (images",
        "(lambda *_: 0)(self._plain, (images",
        TT + "test_settled.py::test_the_best_epoch_is_chosen_by_settled_batch_norms",
    ),
    Mutation(
        T + "_trainer.py",
        "norm.momentum**steps < _SETTLED",
        "False",
        TT + "test_settled.py::test_long_epochs_keep_their_moving_averages",
    ),
    Mutation(
        T + "_trainer.py",
        "if not math.isfinite(logs",
        "if False and not math.isfinite(logs",
        TT + "test_trainer.py::test_a_loss_that_explodes_stops_with_a_text",
    ),
    Mutation(
        T + "_auxiliary.py",
        "self._weight * sum(",
        "sum(",
        TT + "test_settled.py::test_auxiliary_heads_train_with_their_weight_and_are_left_out",
    ),
    Mutation(
        T + "_distillation.py",
        "student_loss_weight=self.alpha",
        "student_loss_weight=1 - self.alpha",
        TT + "test_distillation.py::test_the_loss_is_hintons",
    ),
    Mutation(
        T + "_distillation.py",
        "LogitsDistillation(self.temperature,",
        "LogitsDistillation(1.0,",
        TT + "test_distillation.py::test_the_loss_is_hintons",
    ),
    Mutation(
        T + "_distillation.py",
        "set_weights(teacher, self.teacher.get_weights())",
        "teacher.set_weights(self.teacher.get_weights())",
        TT + "test_distillation.py::test_a_teacher_normalizes_by_what_it_was_adapted_to",
    ),
    Mutation(
        T + "run_folder.py",
        "[*trained.variables, *model.optimizer.variables]",
        "[*trained.variables]",
        TT + "test_trainer.py::test_a_killed_run_ends_like_an_uninterrupted_one",
    ),
    Mutation(
        T + "_recipe.py",
        "min(3, self.epochs - 1)",
        "min(2, self.epochs - 1)",
        TT + "test_settled.py::test_a_short_recipe_warms_up_in_all_but_its_last_epoch",
    ),
    Mutation(T + "_data.py", "return min(batch_size, self.train_count)", "return batch_size", TT + "test_data.py"),
    Mutation(
        T + "_data.py",
        "round(len(members) * validation_split)",
        "int(len(members) * validation_split)",
        TT + "test_data.py::test_digits_are_split_by_class",
    ),
    Mutation(
        T + "_data.py",
        "np.ascontiguousarray(self.pixels).data",
        'b""',
        TT + "test_data.py::test_the_fingerprint_tells_data_apart",
    ),
    Mutation(
        T + "_data.py",
        "round(len(targets) * validation_split), 1)",
        "round(len(targets) * validation_split), 0)",
        TT + "test_data.py",
    ),
    Mutation(
        T + "_sources.py",
        "files[index * len(files) // limit]",
        "files[index]",
        TT + "test_data.py::test_images_without_labels_come_from_files_and_folders",
    ),
    Mutation(
        T + "_folders.py",
        "held_out = validation or test",
        "held_out = test or validation",
        "tests/test_image_formats.py::test_folders_divided_into_parts",
    ),
    Mutation(
        T + "_folders.py",
        '"__macosx", ',
        "",
        "tests/test_image_formats.py::test_all_that_is_skipped_or_ignored_is_named_and_counted",
    ),
    Mutation(
        T + "_folders.py",
        "if _is_data(name) and real not in seen:",
        "if _is_data(name):",
        "tests/test_image_formats.py::test_all_that_is_skipped_or_ignored_is_named_and_counted",
    ),
    Mutation(
        T + "_folders.py",
        "pass {root / folders[0]}.",
        "pass {root}.",
        "tests/test_image_formats.py::test_a_folder_around_the_classes_is_named",
    ),
    # Tasks, labels, names
    Mutation(
        "keraslight/_tasks.py",
        "task or remembered_task(model), ",
        "task, ",
        "tests/test_tasks.py::test_a_task_is_remembered_through_copies_and_rewrites",
    ),
    Mutation(
        "keraslight/_tasks.py",
        "outputs > (0.5 if head.activation is None else 0.0)",
        "outputs > 0.5",
        "tests/test_tasks.py::test_scores",
    ),
    Mutation(
        "keraslight/_tasks.py",
        "threshold=0.5 if head.activation is None else 0.0",
        "threshold=0.5",
        "tests/test_tasks.py",
    ),
    Mutation(
        "keraslight/_tasks.py",
        "np.exp(values - values.max(-1, keepdims=True))",
        "np.exp(values)",
        "tests/test_tasks.py",
    ),
    Mutation(
        "keraslight/_tasks.py",
        "np.tanh(0.5 * values)",
        "np.tanh(values)",
        "tests/export/test_tasks.py::test_a_servable_gives_the_models_numbers",
    ),
    Mutation(
        "keraslight/_tasks.py",
        "BinaryCrossentropy(from_logits=logits,",
        "BinaryCrossentropy(from_logits=False,",
        "tests/test_tasks.py::test_losses_are_those_of_the_formulas",
    ),
    Mutation(
        "keraslight/_tasks.py",
        'task = "binary" if units == 1 else "multi-label"',
        'task = "multi-label"',
        "tests/test_tasks.py::test_a_task_is_read_off_the_end",
    ),
    Mutation(
        "keraslight/_tasks.py",
        "wanted - wanted.mean(0)) ** 2",
        "wanted - wanted.mean()) ** 2",
        "tests/test_tasks.py::test_scores",
    ),
    Mutation(
        "keraslight/graph/ends.py",
        "return axis in (-1, rank - 1) and tensor.shape[-1] == units",
        "return axis in (-1, rank - 1)",
        "tests/test_tasks.py::test_a_task_that_the_end_does_not_tell_is_asked_for",
    ),
    Mutation(
        "keraslight/graph/ends.py",
        '("softmax", "sigmoid", "hard_sigmoid")\n        if behind',
        '("softmax", "sigmoid")\n        if behind',
        "tests/test_tasks.py",
    ),
    Mutation("keraslight/labels.py", "np.argsort(-scores, axis=1", "np.argsort(scores, axis=1", "tests/test_labels.py"),
    Mutation("keraslight/labels.py", '.split("\\n"))[\n        :-1\n    ]', '.split("\\n"))', "tests/test_labels.py"),
    Mutation(S + "labels.py", 'content.decode("utf-8-sig")', 'content.decode("utf-8")', "tests/test_label_kinds.py"),
    Mutation(
        S + "labels.py", 'text.split("\\n")]\n    while', "text.splitlines()]\n    while", "tests/test_label_kinds.py"
    ),
    Mutation(
        S + "labels.py",
        "== list(range(len(labels))):\n        labels =",
        "== list(range(1, 1 + len(labels))):\n        labels =",
        "tests/test_label_kinds.py",
    ),
    Mutation(
        S + "labels.py", "len(labels) == 1000 and label in _TWICE", "label in _TWICE", "tests/test_label_kinds.py"
    ),
    Mutation(S + "labels.py", "while labels and not labels[-1].strip():", "while False:", "tests/test_label_kinds.py"),
    Mutation(
        S + "labels.py", 'if "\\n" in label or "\\r" in label:', 'if "\\n" in label:', "tests/test_label_kinds.py"
    ),
    Mutation("keraslight/_near.py", "rows[-2][j - 2] + 1", "rows[-2][j - 2] + 2", "tests/test_catalogue.py"),
    Mutation("keraslight/_near.py", "len(written) / 3", "len(written)", "tests/test_catalogue.py"),
    Mutation("keraslight/_near.py", 'lower().replace("+", "plus")', "lower()", "tests/test_catalogue.py"),
    Mutation("keraslight/_near.py", "return 0.9", "return 5.0", "tests/test_catalogue.py"),
    Mutation("keraslight/_near.py", "<= min(found)[0] + 1", "<= min(found)[0] + 9", "tests/test_catalogue.py"),
    Mutation("keraslight/catalogue.py", '("hf-hub:", "hf_hub:")', '("hf-hub:",)', "tests/test_catalogue.py"),
    Mutation(
        "keraslight/catalogue.py",
        "return sorted(fnmatch.filter(_rows(), pattern))",
        "return fnmatch.filter(_rows(), pattern)",
        "tests/test_zoo.py::test_list_models_takes_wildcards",
    ),
    # Layers
    Mutation(L + "layer_norm.py", "x * self.gamma + self.beta", "x * self.gamma", TL + "test_norms.py"),
    Mutation(L + "layer_norm.py", "epsilon: float = 1e-6", "epsilon: float = 1e-5", TL + "test_norms.py"),
    Mutation(L + "grn.py", "epsilon: float = 1e-6", "epsilon: float = 1e-3", TL + "test_norms.py"),
    Mutation(L + "grn.py", "TINY = 1e-24", "TINY = 0.0", TL + "test_norms.py"),
    Mutation(
        L + "local_response_norm.py",
        "** -self.beta",
        "** -1.0",
        TA + "test_alexnet.py::test_local_response_norm_is_the_papers",
    ),
    Mutation(L + "batch_norm.py", "variance *= (pixels - 1) / pixels", "pass", TL + "test_batch_norm.py"),
    Mutation(
        L + "batch_norm.py",
        "moving * self.momentum + value * (1 - self.momentum)",
        "moving * (1 - self.momentum) + value * self.momentum",
        TL + "test_batch_norm.py",
    ),
    Mutation(L + "batch_norm.py", "if training and self.trainable:", "if training:", TL + "test_batch_norm.py"),
    Mutation(L + "batch_norm.py", "and self.axis in (-1, 3)", "", TL + "test_batch_norm.py"),
    Mutation(
        L + "deformable_conv.py", "(1, (1 - down) * right)", "(1, down * (1 - right))", TL + "test_deformable_conv.py"
    ),
    Mutation(
        L + "deformable_conv.py",
        "n // k if axis == 0 else n % k",
        "n % k if axis == 0 else n // k",
        TL + "test_deformable_conv.py",
    ),
    Mutation(
        L + "deformable_conv.py",
        'ops.clip(place, -1.0, ops.cast(side, "float32"))',
        'ops.clip(place, 0.0, ops.cast(side, "float32"))',
        TL + "test_deformable_conv.py",
    ),
    Mutation(
        L + "conditional_conv.py", "ops.sigmoid(ops.matmul", "ops.softmax(ops.matmul", TL + "test_conditional_conv.py"
    ),
    Mutation(
        L + "conditional_conv.py",
        "for i in range(k) for j in range(k)",
        "for j in range(k) for i in range(k)",
        TL + "test_conditional_conv.py",
    ),
    Mutation(L + "conditional_conv.py", 'config["seed"] += expert', "pass", TL + "test_conditional_conv.py"),
    Mutation(
        L + "equivariant.py",
        "ops.flip(ops.swapaxes(kernel, 0, 1), axis=0)",
        "ops.flip(ops.swapaxes(kernel, 0, 1), axis=1)",
        TL + "test_equivariant.py",
    ),
    Mutation(L + "unpooling.py", "ops.reshape(row * width", "ops.reshape(row * height", TL + "test_unpooling.py"),
    Mutation(
        L + "unpooling.py",
        "shift - self.padding, 0, side - 1)",
        "shift - self.padding, -1, side)",
        TL + "test_unpooling.py",
    ),
    Mutation(
        L + "_convolution.py",
        "return total // 2, total - total // 2",
        "return total - total // 2, total // 2",
        TL + "test_deformable_conv.py",
    ),
    Mutation(L + "code_distance.py", "2 * ops.matmul", "ops.matmul", TA + "test_lenet.py"),
    Mutation(
        L + "channel_slice.py",
        "self.start : self.stop : self.step",
        "self.start : self.stop",
        TL + "test_channel_slice.py",
    ),
    # Blocks
    Mutation(B + "attention.py", "// 2 * 2 + 1", "// 2 * 2 - 1", "tests/blocks/test_attention.py"),
    Mutation(B + "attention.py", '("rows", "columns")', '("columns", "rows")', "tests/blocks/test_attention.py"),
    Mutation(
        B + "attention.py",
        "layers.GlobalMaxPooling2D)):",
        "layers.GlobalAveragePooling2D)):",
        "tests/blocks/test_attention.py",
    ),
    Mutation(
        B + "attention.py", 'gate: str = "sigmoid"', 'gate: str = "hard_sigmoid"', "tests/blocks/test_attention.py"
    ),
    Mutation(B + "conv.py", "kernel // 2, name=", "(kernel - 1) // 2 + 1, name=", "tests/blocks/test_blocks.py"),
    Mutation(
        B + "conv.py",
        "rounded < limit * value",
        "rounded <= limit * value",
        "tests/blocks/test_blocks.py::test_make_divisible",
    ),
    Mutation(B + "conv.py", "return kernel + (kernel - 1) * (dilation - 1)", "return kernel + kernel * (dilation - 1)", "tests/blocks/test_blocks.py"),
    Mutation(
        B + "conv.py",
        "if kernel % 2 == 0 and style.padding",
        "if False and style.padding",
        "tests/blocks/test_ignored.py",
    ),
    Mutation(
        B + "conv.py",
        'padding="same", epsilon=1e-3, momentum=0.99',
        'padding="same", epsilon=1e-5, momentum=0.99',
        "tests/weights/test_golden.py::test_logits_equal_the_references[timm__tf_efficientnet_b0.npz]",
    ),
    Mutation(B + "shuffle.py", "layers.Permute((1, 3, 2)", "layers.Permute((1, 2, 3)", "tests/blocks/test_blocks.py"),
    Mutation(B + "shuffle.py", "reduced // groups, name=", "groups, name=", "tests/weights/test_golden.py::test_logits_equal_the_references[ref__shufflenet_v1_g3_x1_0.npz]"),
)
