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
    Mutation(
        B + "conv.py",
        "return kernel + (kernel - 1) * (dilation - 1)",
        "return kernel + kernel * (dilation - 1)",
        "tests/blocks/test_blocks.py",
    ),
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
    Mutation(
        B + "shuffle.py",
        "reduced // groups, name=",
        "groups, name=",
        "tests/weights/test_golden.py::test_logits_equal_the_references[ref__shufflenet_v1_g3_x1_0.npz]",
    ),
    # Counting and maps
    Mutation(
        "keraslight/graph/weights.py",
        "if id(weight) not in statistics]",
        'if id(weight) not in statistics and "seed" not in weight.path]',
        TN + "test_cost.py::test_seeds_in_names_are_no_random_generators",
    ),
    Mutation(
        "keraslight/graph/weights.py",
        'keras.layers.Normalization: ("adapt_mean", "adapt_variance", "count"),',
        "",
        TN + "test_cost.py::test_statistics_of_the_data_are_not_learned",
    ),
    Mutation(
        "keraslight/graph/weights.py",
        'keras.layers.SpectralNormalization: ("vector_u",),',
        "",
        TN + "test_cost.py::test_statistics_of_the_data_are_not_learned",
    ),
    Mutation(
        "keraslight/graph/weights.py",
        "2 * distinct <= weights.size",
        "distinct <= weights.size",
        TC + "test_clustering.py::test_quantization_aware_training_keeps_the_values",
    ),
    Mutation(
        "keraslight/graph/kinds.py",
        "math.prod(layer.kernel.shape[:-2]))",
        "math.prod(layer.kernel.shape[:-1]))",
        TN + "test_cost.py",
    ),
    Mutation(
        "keraslight/graph/kinds.py",
        "_times(inputs[0][1:], math.prod(layer.kernel.shape[:-1]))",
        "_times(outputs[0][1:], math.prod(layer.kernel.shape[:-1]))",
        TN + "test_cost.py",
    ),
    Mutation(
        "keraslight/graph/kinds.py",
        "return None if pixels is None else once + pixels",
        "return pixels",
        TN + "test_cost.py",
    ),
    Mutation(
        "keraslight/graph/kinds.py",
        "places * (queries + scores) + (_times(value[1:-1], keys) or 0)",
        "places * (queries + scores + keys)",
        TN + "test_cost.py",
    ),
    Mutation(
        "keraslight/graph/kinds.py",
        "scale = 1 / np.sqrt(variance + norm.epsilon)",
        "scale = 1 / np.sqrt(variance)",
        "tests/graph/test_kinds.py",
    ),
    Mutation("keraslight/graph/kinds.py", "if layer.invert or tuple", "if tuple", "tests/graph/test_kinds.py"),
    Mutation(
        "keraslight/graph/kinds.py",
        '{None: "relu", 6.0: "relu6"}.get(layer.max_value) if plain else None',
        '{None: "relu", 6.0: "relu6"}.get(layer.max_value)',
        "tests/graph/test_kinds.py",
    ),
    Mutation(
        "keraslight/graph/kinds.py", 'if "call" in vars(base):\n            break', "pass", "tests/graph/test_kinds.py"
    ),
    Mutation(
        N + "formulas.py",
        "-(-height // stride) * -(-width // stride)",
        "(height // stride) * (width // stride)",
        TN + "test_formulas.py",
    ),
    Mutation(
        N + "formulas.py",
        "primary * (ghost_ratio - 1) * ghost_kernel**2",
        "primary * ghost_ratio * ghost_kernel**2",
        TN + "test_formulas.py",
    ),
    Mutation(
        N + "cost.py", "and any(len(weight.shape) > 1 for", "and all(len(weight.shape) > 1 for", TN + "test_cost.py"
    ),
    Mutation(
        N + "receptive_field.py",
        "(kernel - 1) * dilation, layer.padding",
        "kernel * dilation - 1, layer.padding",
        TN + "test_receptive_field.py::test_dilated_stack",
    ),
    Mutation(
        N + "receptive_field.py",
        '"bilinear": 0, "bicubic": 1',
        '"bilinear": 0, "bicubic": 0',
        TN + "test_receptive_field.py::test_what_makes_maps_larger_agrees_with_the_support_of_the_gradient",
    ),
    Mutation(
        N + "receptive_field.py",
        "place -= Fraction(1, 2)",
        "pass",
        TN + "test_receptive_field.py::test_what_makes_maps_larger_agrees_with_the_support_of_the_gradient",
    ),
    Mutation(
        N + "receptive_field.py",
        "before = seen.get(tensor, (low, high))\n",
        "before = low, high\n",
        TN + "test_receptive_field.py::test_backwards_gives_the_same",
    ),
    Mutation(
        N + "receptive_field.py",
        "-layer.cropping[axis][0]",
        "layer.cropping[axis][0]",
        TN + "test_receptive_field.py::test_branches_padding_and_cropping",
    ),
    Mutation(
        N + "receptive_field.py",
        "whole=any(reach.whole for reach in reaches)",
        "whole=all(reach.whole for reach in reaches)",
        TN + "test_receptive_field.py::test_the_whole_image",
    ),
    Mutation(
        N + "_memory.py",
        "deaths.update((owners[tensor], end) for",
        "() and deaths.update((owners[tensor], end) for",
        TN + "test_profile.py",
    ),
    Mutation(N + "_memory.py", "change[deaths[tensor] + 1]", "change[deaths[tensor]]", TN + "test_profile.py"),
    Mutation(N + "profile.py", "if id(weight) not in counted]", "]", TN + "test_profile.py"),
    Mutation(N + "profile.py", "(0 if known.view else moved)", "moved", TN + "test_profile.py"),
    Mutation(
        N + "grad_cam.py",
        ".sum(axis=-1), 0)",
        ".sum(axis=-1), -1e9)",
        TN + "test_grad_cam.py::test_average_pooling_and_a_dense_layer_give_the_class_activation_map",
    ),
    Mutation(
        N + "grad_cam.py",
        "linear if linear is not None and call is last else call",
        "call",
        TN + "test_grad_cam.py::test_average_pooling_and_a_dense_layer_give_the_class_activation_map",
    ),
    Mutation(
        N + "effective_field.py",
        "values.shape[1] // 2, values.shape[2] // 2",
        "values.shape[1] // 2, values.shape[1] // 2",
        TN + "test_effective_field.py",
    ),
    Mutation(
        N + "latency.py",
        "return 2 * source.nbytes / min(times)",
        "return source.nbytes / min(times)",
        TN + "test_latency.py::test_memory_bandwidth",
    ),
    # Compression
    Mutation("keraslight/graph/modes.py", "seen / (seen + 1)", "0.5", TC + "test_batch_norm.py"),
    Mutation(
        "keraslight/graph/modes.py",
        "if call.in_inference or not",
        "if not",
        TC + "test_frozen.py::test_settling_keeps_statistics_in_inference_mode",
    ),
    Mutation(
        "keraslight/graph/modes.py",
        "isinstance(layer, keras.layers.BatchNormalization) and layer.trainable",
        "isinstance(layer, keras.layers.BatchNormalization)",
        TC + "test_batch_norm.py",
    ),
    Mutation(
        "keraslight/graph/modes.py",
        "bool(training) and not call.in_inference",
        "bool(training)",
        TC + "test_frozen.py::test_settling_keeps_statistics_in_inference_mode",
    ),
    Mutation(
        C + "_fine_tune.py",
        "settle_batch_norms(model, train)",
        "pass",
        TC + "test_batch_norm.py::test_a_pruned_model_has_settled_batch_norms",
    ),
    Mutation(
        C + "_fine_tune.py",
        "trained = compile_(keeping, loss)",
        "pass",
        TC + "test_frozen.py::test_pruning_keeps_frozen_kernels_and_statistics_in_inference_mode",
    ),
    Mutation(
        C + "_fine_tune.py", 'dataclasses.replace(head, activation="softmax")', "head", TC + "test_pruning_distilled.py"
    ),
    Mutation(C + "_fine_tune.py", "remember_task(model, task)", "pass", TC + "test_tasks.py"),
    Mutation(
        C + "_tfmot/pruning.py",
        "begin = end - (end - begin) // frequency * frequency\n",
        "pass\n",
        TC + "test_pruning.py::test_final_sparsity_is_reached_whatever_the_frequency",
    ),
    Mutation(C + "_tfmot/pruning.py", "n=kept - 1, reverse", "n=kept, reverse", TC + "test_pruning_masks.py"),
    Mutation(
        C + "_tfmot/pruning.py",
        "magnitudes >= threshold, weights",
        "magnitudes > threshold, weights",
        TC + "test_pruning_masks.py",
    ),
    Mutation(C + "_tfmot/pruning.py", "self._mask_all()", "pass", TC + "test_pruning_masks.py"),
    Mutation(
        C + "_tfmot/pruning.py",
        "self.step.assign_add(1)",
        "self.step.assign_add(2)",
        TC + "test_pruning.py::test_sparsity_grows_by_the_papers_cube",
    ),
    Mutation(
        C + "pruning/callback.py",
        "max(int(self.begin_fraction * steps * epochs), 1)",
        "1",
        TC + "test_pruning.py::test_fractions_are_shares_of_all_steps",
    ),
    Mutation(
        C + "pruning/callback.py",
        "check_finite(read(model).layers())",
        "pass",
        TC + "test_int8_dead.py::test_weights_that_are_not_finite_are_refused_with_their_layer",
    ),
    Mutation(
        C + "pruning/callback.py",
        "self.model.student if distilled else self.model",
        "self.model",
        TC + "test_pruning_distilled.py::test_the_callback_prunes_the_student_of_a_distiller",
    ),
    Mutation(C + "pruning/sparsity.py", "and layer.groups == 1", "", TC + "test_pruning.py::test_policy_for_xnnpack"),
    Mutation(
        C + "pruning/sparsity.py",
        '        and tuple(layer.get_build_config()["input_shape"][1:3]) != (1, 1)\n',
        "",
        TC + "test_pruning.py::test_policy_for_xnnpack",
    ),
    Mutation(
        C + "pruning/sparsity.py",
        "is_frozen(layer) or not kernel_of(layer).trainable",
        "False",
        TC + "test_frozen.py::test_pruning_keeps_frozen_kernels_and_statistics_in_inference_mode",
    ),
    Mutation(
        C + "pruning/sparsity.py",
        "for pattern, share in sparsity.items() if",
        "for pattern, share in reversed(sparsity.items()) if",
        TC + "test_pruning.py::test_sparsity_by_layer",
    ),
    Mutation(
        C + "pruning/sensitivity.py",
        "accuracy < self.baseline - loss",
        "accuracy <= self.baseline - loss",
        TC + "test_sensitivity.py",
    ),
    Mutation(C + "pruning/sensitivity.py", "kernel.assign(dense)\n", "pass\n", TC + "test_sensitivity.py"),
    Mutation(
        C + "pruning/sensitivity.py",
        "int(np.ceil(kernel.size * sparsity))",
        "int(kernel.size * sparsity)",
        TC + "test_sensitivity.py",
    ),
    Mutation(
        C + "_tfmot/clustering.py",
        "unsorted_segment_mean(tf.reshape(step",
        "unsorted_segment_sum(tf.reshape(step",
        TC + "test_clustering.py::test_training_gives_the_librarys_centroids_and_weights",
    ),
    Mutation(
        C + "_tfmot/clustering.py",
        "means[np.abs(found).argmin()] = 0",
        "pass",
        TC + "test_clustering.py::test_every_epoch_ends_clustered_and_zeros_stay",
    ),
    Mutation(
        C + "_tfmot/clustering.py",
        "_ROUNDS = 100",
        "_ROUNDS = 0",
        TC + "test_clustering.py::test_lloyds_algorithm_comes_nearer_to_the_weights",
    ),
    Mutation(
        C + "clustering/callback.py",
        ">= 2 * self.clusters",
        ">= self.clusters",
        TC + "test_clustering.py::test_default_layers_small_kernels_and_the_model_that_went_in",
    ),
    Mutation(
        C + "_tfmot/quantizers.py",
        "tf.minimum(tf.reduce_min(inputs), 0.0)",
        "tf.reduce_min(inputs)",
        TC + "test_quantizers.py",
    ),
    Mutation(C + "_tfmot/quantizers.py", "else min(float(low), 0.0)", "else float(low)", TC + "test_quantizers.py"),
    Mutation(C + "_tfmot/quantizers.py", "limit / 127)", "limit / 128)", TC + "test_quantizers.py"),
    Mutation(C + "_tfmot/quantizers.py", "narrow_range=True", "narrow_range=False", TC + "test_quantizers.py"),
    Mutation(
        C + "_tfmot/quantizers.py",
        "unsorted_segment_mean(flat",
        "unsorted_segment_sum(flat",
        TC + "test_clustering.py::test_quantization_aware_training_keeps_the_values",
    ),
    Mutation(
        C + "_tfmot/quantizers.py",
        "return w * tf.reshape(self.mask, w.shape)",
        "return w",
        TC + "test_quantize.py::test_plain_fit_keeps_zeros_and_constants",
    ),
    Mutation(
        C + "_tfmot/ranges.py",
        "_BIAS = 2.0**24",
        "_BIAS = 2.0**44",
        TC + "test_int8_dead.py::test_dead_channels_keep_their_biases",
    ),
    Mutation(
        C + "_tfmot/ranges.py",
        "bias = bias - fold.moving_mean * scale + (0.0 if fold.beta is None else fold.beta)",
        "pass",
        TC + "test_int8_dead.py::test_dead_channels_keep_their_biases",
    ),
    Mutation(
        C + "quantization/equalize.py",
        "np.sqrt(ours[alive] / theirs[alive])",
        "ours[alive] / theirs[alive]",
        TC + "test_calibrate.py::test_equalizing_keeps_the_outputs_and_balances_the_channels",
    ),
    Mutation(
        C + "quantization/equalize.py",
        "step.set_kernel(step.kernel, step.bias + missing)",
        "step.set_kernel(step.kernel, step.bias - missing)",
        TC + "test_calibrate.py::test_corrected_biases_bring_the_means_back",
    ),
    Mutation(
        C + "quantization/equalize.py",
        "return kernel.reshape(len(kernel), groups, -1).max(axis=2).T.reshape(-1)",
        "return kernel.reshape(len(kernel), groups, -1).max(axis=2).reshape(-1)",
        TC + "test_calibrate.py::test_groups_and_zero_channels",
    ),
    Mutation(
        C + "quantization/equalize.py",
        "keepdims=True) / 127",
        "keepdims=True) / 7",
        TC + "test_calibrate.py::test_corrected_biases_bring_the_means_back",
    ),
    Mutation(C + "quantization/judge.py", "baseline - self.accuracy", "self.accuracy - baseline", TC + "test_mixed.py"),
    Mutation(
        C + "quantization/mixed.py",
        "-self.layers[name].difference",
        "self.layers[name].difference",
        TC + "test_mixed.py::test_the_costly_layers_stay_float_until_the_bound_holds",
    ),
    # Rewrites
    Mutation(R + "_fuse.py", "idle or step.call.in_training or len", "idle or len", TC + "test_fuse.py"),
    Mutation(
        R + "_fuse.py",
        "trainable = first.trainable and step.trainable",
        "trainable = True",
        TC + "test_frozen.py::test_a_kernel_that_a_frozen_one_is_merged_into_is_frozen",
    ),
    Mutation(
        R + "_fuse.py",
        "if step.call.name == LAYER_NAME:",
        "if False:",
        TC + "test_fuse.py::test_the_layer_that_knows_the_preprocessing_stays",
    ),
    Mutation(R + "_fuse.py", 'if not dense and first.node.config["groups"] > 1:', "if False:", TC + "test_fuse.py"),
    Mutation(R + "_half.py", "65504.0", "65520.0", TC + "test_half.py"),
    Mutation(R + "_half.py", "and not row.keeps_float32", "", TC + "test_half.py"),
    Mutation(
        R + "_reparameterize.py",
        "np.arange(channels) % inside, np.arange(channels)] = 1",
        "0, np.arange(channels)] = 1",
        TC + "test_reparameterize.py",
    ),
    Mutation(
        R + "_reparameterize.py",
        "(kernel - 1) // 2 for kernel in",
        "kernel // 2 for kernel in",
        TC + "test_reparameterize.py",
    ),
    Mutation(R + "_reparameterize.py", '"trainable": not frozen', '"trainable": True', TC + "test_reparameterize.py"),
    Mutation(
        R + "_reparameterize.py",
        "own * scale, shift * scale + offset",
        "own * scale, shift + offset",
        TC + "test_reparameterize.py",
    ),
    Mutation(
        R + "_reparameterize.py",
        "and layer.dilation_rate == (1, 1)",
        "",
        TC + "test_reparameterize.py::test_what_is_no_such_block",
    ),
    Mutation(
        R + "steps.py",
        "np.arange(outputs) // (outputs // groups) * inside",
        "np.arange(outputs) % groups * inside",
        TC + "test_fuse.py",
    ),
    Mutation(R + "steps.py", "self.bias * scale + shift", "self.bias + shift", TC + "test_fuse.py"),
    # Export
    Mutation("keraslight/export/_inference.py", "_TINY = 1e-30", "_TINY = 1e-3", "tests/export/test_inference.py"),
    Mutation(
        "keraslight/export/_inference.py",
        "keras.ops.pad(x, [[0, 0], [1, 0]])",
        "keras.ops.pad(x, [[0, 0], [0, 1]])",
        "tests/export/test_tasks.py::test_a_servable_gives_the_models_numbers",
    ),
    Mutation(
        "keraslight/export/_inference.py",
        "np.concatenate([1 - values, values], axis=1)",
        "np.concatenate([values, 1 - values], axis=1)",
        "tests/export/test_tasks.py::test_a_servable_gives_the_models_numbers",
    ),
    Mutation(
        "keraslight/export/_signatures.py",
        "method = CLASSIFY_METHOD if head.ranks else REGRESS_METHOD",
        "method = CLASSIFY_METHOD",
        "tests/export/test_tasks.py::test_every_signature_of_a_server",
    ),
    Mutation(
        "keraslight/export/_signatures.py",
        "size[0] > max_pixels // size[1]",
        "size[0] >= max_pixels // size[1]",
        "tests/export/test_signatures.py::test_larger_images_than_allowed_are_refused_before_they_are_decoded",
    ),
    Mutation(
        "keraslight/export/_signatures.py",
        "size[0] > max_pixels // size[1]",
        "size[0] * size[1] > max_pixels",
        "tests/export/test_signatures.py::test_larger_images_than_allowed_are_refused_before_they_are_decoded",
    ),
    Mutation(
        "keraslight/export/_versions.py",
        "hidden.chmod(0o755)",
        "pass",
        "tests/export/test_versions.py::test_a_version_is_readable_by_others_and_replaced_whole",
    ),
    Mutation(
        "keraslight/export/_versions.py",
        "sorted(int(child.name) for",
        "list(int(child.name) for",
        "tests/export/test_versions.py",
    ),
    Mutation(
        "keraslight/export/_repository.py",
        "if number not in labelled]",
        "]",
        "tests/export/test_versions.py::test_labels_are_served_and_never_pruned",
    ),
    Mutation(
        "keraslight/export/_repository.py",
        "sorted({*entry.version_labels.values(), versions[-1]})",
        "sorted({*entry.version_labels.values()})",
        "tests/export/test_versions.py::test_labels_are_served_and_never_pruned",
    ),
    Mutation(
        "keraslight/export/onnx.py",
        "if not difference <= tolerance:",
        "if difference > tolerance:",
        "tests/export/test_onnx.py::test_a_file_that_differs_is_not_kept",
    ),
    Mutation(
        "keraslight/export/onnx.py",
        'node.set_attr("group", groups)',
        "pass",
        "tests/export/test_any_model.py::test_onnx_runtime_gives_the_layers_values",
    ),
    Mutation(
        "keraslight/export/onnx.py",
        '"Expm1": _expm1, ',
        "",
        "tests/export/test_any_model.py::test_onnx_runtime_gives_the_layers_values",
    ),
    Mutation(
        "keraslight/export/litert/convert.py",
        "labels=labels[1:]",
        "labels=labels[:1]",
        "tests/export/test_tasks.py::test_a_label_file_and_metadata",
    ),
    Mutation(
        "keraslight/export/litert/convert.py", "_SPARSE_FROM = 0.6", "_SPARSE_FROM = 0.9", TC + "test_pruned_files.py"
    ),
    Mutation("keraslight/export/litert/convert.py", "_SAMPLES = 128", "_SAMPLES = 1", "tests/export/test_litert.py"),
    Mutation(
        "keraslight/export/litert/_metadata.py",
        "names.get(index) != OUTPUT_NAME",
        "names.get(index) == OUTPUT_NAME",
        "tests/export/test_litert_metadata.py",
    ),
    Mutation(
        "keraslight/export/litert/_metadata.py",
        "5: {0: [255.0] * channels, 1: [0.0] * channels}",
        "5: {0: [1.0] * channels, 1: [0.0] * channels}",
        "tests/export/test_litert_metadata.py",
    ),
    Mutation(
        "keraslight/export/litert/_metadata.py",
        '.removesuffix("\\n").split("\\n"))',
        ".splitlines())",
        "tests/test_label_kinds.py",
    ),
    Mutation(
        "keraslight/export/litert/_metadata.py",
        "(1980, 1, 1, 0, 0, 0)",
        "__import__('time').localtime()[:6]",
        "tests/export/test_litert_metadata.py::test_the_same_model_gives_the_same_file",
    ),
    Mutation(
        "keraslight/export/litert/_parity.py",
        "if limit is not None and not found <= limit:",
        "if limit is not None and found > limit:",
        "tests/export/test_litert_parity.py",
    ),
    Mutation(
        "keraslight/export/litert/_float16.py",
        "FLOAT32_SHARE = 0.08",
        "FLOAT32_SHARE = 0.0",
        "tests/export/test_litert_float16.py",
    ),
    Mutation(
        "keraslight/export/litert/_calibrated.py",
        "ranges[index] = 0.0, 255.0",
        "pass",
        TC + "test_int8_dead.py::test_raw_pixels_have_the_scale_one",
    ),
    Mutation(
        "keraslight/export/litert/_calibrated.py",
        "ranges.clip_padding()",
        "pass",
        TC + "test_int8_dead.py::test_padding_below_all_steps_needs_a_maximum_behind_it",
    ),
    Mutation(
        "keraslight/export/litert/_calibrated.py",
        "self.at_least(index, max(map(self.width, inputs), default=0.0) or 1.0)",
        "pass",
        TC + "test_int8_sweep.py::test_int8_answers_are_right",
    ),
    # Images, data, weights
    Mutation(
        "keraslight/preprocessing.py",
        "(tf.shape(resized)[:2] - [height, width]) // 2",
        "(tf.shape(resized)[:2] - [height, width]) // 3",
        "tests/test_preprocessing.py::test_photographs_as_pillow_resizes_and_crops_them",
    ),
    Mutation(
        "keraslight/preprocessing.py",
        "tf.reduce_max(covered / shape)",
        "tf.reduce_min(covered / shape)",
        "tests/test_preprocessing.py::test_photographs_as_pillow_resizes_and_crops_them",
    ),
    Mutation(
        "keraslight/preprocessing.py",
        "tf.round(resized), 0.0, 255.0)",
        "tf.floor(resized), 0.0, 255.0)",
        "tests/test_preprocessing.py::test_photographs_as_pillow_resizes_and_crops_them",
    ),
    Mutation(
        "keraslight/preprocessing.py",
        "(sum(self.std) / self.channels,)",
        "(max(self.std),)",
        "tests/test_zoo.py::test_preprocessing_of_one_channel_takes_the_mean_of_three",
    ),
    Mutation(
        "keraslight/_image_files.py",
        "[[3, 4, 7, 8], [2, 3, 6, 7]]",
        "[[3, 4, 6, 7], [2, 3, 7, 8]]",
        "tests/test_image_files.py",
    ),
    Mutation("keraslight/_image_files.py", "mark[1] != 0xDA)", "mark[1] != 0xD9)", "tests/test_image_files.py"),
    Mutation(
        "keraslight/_image_files.py",
        "filler = mark[1] == 0xFF",
        "filler = mark[1] == 0xFE",
        "tests/test_image_files.py",
    ),
    Mutation(
        "keraslight/_image_files.py", "value <= 8, value, 1)", "value < 8, value, 1)", "tests/test_image_files.py"
    ),
    Mutation(
        "keraslight/_image_files.py", "8 + size + size % 2 if webp", "8 + size if webp", "tests/test_image_formats.py"
    ),
    Mutation(
        "keraslight/_image_files.py",
        "fields * 255 // tf.maximum(largest, 1)",
        "fields * 256 // tf.maximum(largest + 1, 1)",
        "tests/test_image_formats.py::test_all_kinds_give_the_pixels_of_pillow_and_of_the_client",
    ),
    Mutation(
        "keraslight/_image_files.py",
        "signed_height > 0, lambda",
        "signed_height < 0, lambda",
        "tests/test_image_formats.py::test_all_kinds_give_the_pixels_of_pillow_and_of_the_client",
    ),
    Mutation(
        "keraslight/_image_files.py",
        "stride = (width * bits + 31) // 32 * 4",
        "stride = (width * bits + 7) // 8",
        "tests/test_image_formats.py::test_all_kinds_give_the_pixels_of_pillow_and_of_the_client",
    ),
    Mutation(
        "keraslight/_image_files.py",
        "& (place + size <= canvas)",
        "",
        "tests/test_image_formats.py::test_a_first_frame_may_be_smaller_than_the_animation",
    ),
    Mutation(
        "keraslight/_image_files.py",
        "_little(head, 11, 3), _little(head, 8, 3)]) * 2",
        "_little(head, 8, 3), _little(head, 11, 3)]) * 2",
        "tests/test_image_formats.py::test_a_first_frame_may_be_smaller_than_the_animation",
    ),
    Mutation(
        "keraslight/_batches.py",
        "order = indices.get_single_element().numpy()",
        "pass",
        "tests/test_batches.py::test_arrays_are_shuffled_as_by_tf_data_and_stay_where_they_are",
    ),
    Mutation(
        "keraslight/_batches.py",
        "else dataset.repeat().take(steps)",
        "else dataset",
        "tests/test_batches.py::test_a_filter_that_passes_another_number_in_each_epoch_does_not_end_the_training",
    ),
    Mutation("keraslight/_batches.py", "data.on_epoch_begin()", "pass", "tests/test_batches.py"),
    Mutation(
        "keraslight/weights/loader.py",
        "convert(value)[:, :, ::-1]",
        "convert(value)",
        "tests/weights/test_loader.py::test_weights_for_blue_green_red_take_red_green_blue",
    ),
    Mutation(
        "keraslight/weights/loader.py",
        "kernel.sum(axis=2, keepdims=True)",
        "kernel.mean(axis=2, keepdims=True)",
        "tests/weights/test_loader.py",
    ),
    Mutation(
        "keraslight/weights/loader.py",
        "value.reshape(-1, channels, height, width)",
        "value.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)",
        "tests/weights/test_loader.py",
    ),
    Mutation(
        "keraslight/weights/loader.py",
        'yield "running_mean", _Slot(layer.moving_mean)',
        'yield "running_mean", _Slot(layer.beta)',
        "tests/weights/test_loader.py",
    ),
    # Client
    Mutation(
        S + "client/_retry.py",
        "_SHARES = 4",
        "_SHARES = 8",
        TS + "test_client_calls.py::test_a_server_that_never_answers_keeps_only_a_quarter_of_the_time_for_itself",
    ),
    Mutation(
        S + "client/_retry.py",
        "(None if flying else retry.hedge_after, share)",
        "(retry.hedge_after, share)",
        TS + "test_client_calls.py::test_slow_servers_are_all_used",
    ),
    Mutation(
        S + "client/_retry.py",
        "seconds = min(retry.attempt_timeout or left, left)",
        "seconds = min(retry.attempt_timeout or share or left, left)",
        TS + "test_client_calls.py::test_healthy_servers_that_need_most_of_the_time_answer_as_one_does",
    ),
    Mutation(
        S + "client/_retry.py",
        "attempt.began - slow.began > share / 2",
        "attempt.began - slow.began > 0",
        TS + "test_client_calls.py::test_a_hedge_that_wins_is_no_trouble_of_the_other",
    ),
    Mutation(
        S + "client/_retry.py",
        "or attempt.cut_short:\n",
        "or True:\n",
        TS + "test_client_calls.py::test_the_deadline_covers_all_attempts",
    ),
    Mutation(
        S + "client/_retry.py",
        "late = self.clock() + pause >= deadline",
        "late = False",
        TS + "test_client_calls.py::test_no_pause_that_ends_after_the_deadline",
    ),
    Mutation(
        S + "client/_retry.py",
        "if len(sent) >= retry.attempts or late",
        "if len(sent) > retry.attempts or late",
        TS + "test_client_calls.py::test_attempts_end",
    ),
    Mutation(
        S + "client/_retry.py",
        "if self._left < 1:",
        "if self._left < 0:",
        TS + "test_client_calls.py::test_the_budget_ends_retries_and_successes_refill_it",
    ),
    Mutation(
        S + "client/_retry.py",
        "self._budget.succeeded()",
        "pass",
        TS + "test_client_calls.py::test_the_budget_ends_retries_and_successes_refill_it",
    ),
    Mutation(
        S + "client/_retry.py",
        "uniform(0, min(",
        "uniform(0.04, min(",
        TS + "test_client_calls.py::test_pauses_are_drawn_from_the_whole_range",
    ),
    Mutation(
        S + "client/_retry.py",
        "if not busy and self._budget.take():",
        "if not busy:",
        TS + "test_client_calls.py::test_no_hedge_without_a_budget",
    ),
    Mutation(
        S + "client/_retry.py",
        '"message larger than max" not in',
        '"no such text" not in',
        TS + "test_client_calls.py::test_a_message_that_is_too_large_is_not_sent_again",
    ),
    Mutation(
        S + "client/_retry.py",
        "max(self.clock() + pause, *(other",
        "min(self.clock() + pause, *(other",
        TS + "test_client_calls.py::test_a_server_that_fails_next_to_one_that_hangs_leads_to_the_third_at_once",
    ),
    Mutation(
        S + "client/_endpoints.py",
        "or began < endpoint.ejected_until:",
        ":",
        TS + "test_client_calls.py::test_an_outage_with_many_calls_in_flight_counts_once",
    ),
    Mutation(
        S + "client/_endpoints.py",
        "LONGEST_EJECTION = 30.0",
        "LONGEST_EJECTION = 64.0",
        TS + "test_client_calls.py::test_an_endpoint_that_fails_again_is_skipped_for_longer",
    ),
    Mutation(
        S + "client/_endpoints.py",
        "2.0**endpoint.ejections",
        "2.0**(endpoint.ejections + 1)",
        TS + "test_client_calls.py::test_an_endpoint_that_fails_is_skipped_for_a_second",
    ),
    Mutation(
        S + "client/_endpoints.py",
        "endpoint.troubles, endpoint.ejections, endpoint.ejected_until = 0, 0, 0.0",
        "endpoint.ejected_until = 0.0",
        TS + "test_client_calls.py::test_a_success_ends_the_series_of_failures",
    ),
    Mutation(
        S + "client/_endpoints.py",
        "return min(in_turn, key=lambda endpoint: endpoint.ejected_until)",
        "return in_turn[0]",
        TS + "test_client_calls.py::test_if_all_are_skipped_the_one_that_returns_first_is_used",
    ),
    Mutation(
        S + "client/_endpoints.py",
        '1 <= int(found["port"]) <= 65535',
        '1 <= int(found["port"]) <= 99999',
        TS + "test_client_calls.py::test_ports_that_there_are_not",
    ),
    Mutation(
        S + "client/_endpoints.py",
        "2 * (endpoint in busy) + (endpoint in avoid)",
        "(endpoint in busy) + 2 * (endpoint in avoid)",
        TS + "test_client_calls.py",
    ),
    Mutation(
        S + "client/_endpoints.py",
        "int(not is_local(address))",
        "1",
        TS + "test_client_calls.py::test_no_proxy_between_a_client_and_its_own_machine",
    ),
    Mutation(
        S + "client/_endpoints.py",
        "ipaddress.ip_address(host).is_loopback",
        'host.startswith("127.")',
        TS + "test_client_calls.py",
    ),
    Mutation(
        S + "client/load_test.py",
        'return dict.fromkeys(percents, float("inf" if failed else "nan"))',
        'return dict.fromkeys(percents, float("nan"))',
        TS + "test_client_commands.py::test_percentiles_if_all_fail",
    ),
    Mutation(
        S + "client/load_test.py",
        "np.percentile(slowest_last, percents).tolist()",
        "(np.percentile(slowest_last, percents) / 2).tolist()",
        TS + "test_client_commands.py::test_percentiles_of_a_hundred_known_latencies_and_failures",
    ),
    Mutation(
        S + "client/load_test.py",
        "np.append(self.latencies, np.full(failed, self.latencies.max()))",
        "self.latencies",
        TS + "test_client_commands.py::test_percentiles_of_a_hundred_known_latencies_and_failures",
    ),
    Mutation(
        S + "client/load_test.py",
        "<= 100 * succeeded for",
        "< 100 * succeeded for",
        TS + "test_client_commands.py::test_percentiles_of_a_hundred_known_latencies_and_failures",
    ),
    Mutation(
        S + "client/load_test.py",
        "one(began + moment)",
        "one(time.perf_counter())",
        TS + "test_client_commands.py::test_the_open_loop_does_not_leave_out_those_who_wait",
    ),
    Mutation(
        S + "client/_arrays.py",
        ".max(axis=-1, keepdims=True))\n        scores",
        ".max())\n        scores",
        TS + "test_client.py::test_logits_become_probabilities_image_by_image",
    ),
    Mutation(
        S + "client/_arrays.py", "(array == np.floor(array))", "True", TS + "test_client.py::test_what_can_not_be_sent"
    ),
    Mutation(
        S + "client/_arrays.py", "array[..., 0] if array.shape[2:] == (1,) else array", "array", TS + "test_client.py"
    ),
    Mutation(
        S + "client/_arrays.py",
        '{1: "L", 4: "RGBA"}',
        '{1: "L"}',
        "tests/test_image_formats.py::test_sixteen_bits_and_transparent_gifs_are_the_same_for_the_client",
    ),
    Mutation(
        S + "client/_arrays.py",
        "(spec.width, spec.height), Image",
        "(spec.height, spec.width), Image",
        TS + "test_client_calls.py",
    ),
    Mutation(
        S + "client/_rankings.py",
        "first = batch.first + places[0]",
        "first = batch.first",
        TS + "test_client_calls.py::test_an_image_that_can_not_be_decoded_here",
    ),
    Mutation(
        S + "client/_rankings.py",
        "waiting += [places[half:], places[:half]]",
        "waiting += [places[half:]]",
        TS + "test_client_calls.py::test_an_image_that_can_not_be_decoded_here",
    ),
    Mutation(
        S + "client/_rest_messages.py",
        "413: grpc.StatusCode.RESOURCE_EXHAUSTED",
        "413: grpc.StatusCode.INTERNAL",
        TS + "test_client_rest.py::test_every_status_has_its_error",
    ),
    Mutation(
        S + "client/_rest_messages.py",
        'if status == 400 and text.startswith("Serving signature name: "):',
        "if False:",
        TS + "test_client_rest.py::test_every_status_has_its_error",
    ),
    Mutation(
        S + "client/_rest_messages.py",
        "quote(spec.name, safe='')",
        "quote(spec.name)",
        TS + "test_client_rest.py::test_paths_and_headers",
    ),
    Mutation(
        S + "client/_rest_messages.py",
        "self._outputs.pop(model, None)  # may be outdated",
        "pass",
        TS + "test_client_rest.py::test_a_failure_while_others_wait",
    ),
    Mutation(S + "wire/tensors.py", "flat[-1], dtype)", "0, dtype)", TS + "test_wire.py"),
    Mutation(
        S + "wire/tensors.py",
        "MAX_REPEATED_STRINGS = 2**16",
        "MAX_REPEATED_STRINGS = 2**26",
        TS + "test_bounded_work.py::test_a_string_is_repeated_a_limited_number_of_times",
    ),
    Mutation(
        S + "wire/tensors.py", "if count * dtype.itemsize > max_bytes:", "if count > max_bytes:", TS + "test_wire.py"
    ),
    Mutation(
        S + "wire/tensors.py",
        "length |= (byte & 0x7F) << shift",
        "length = length << 7 | byte & 0x7F",
        TS + "test_wire.py",
    ),
    # Server
    Mutation(
        S + "server/base/budget.py",
        "if self._held + size > self.most:",
        "if self._held > self.most:",
        TS + "test_rest.py::test_all_bodies_together_are_bounded",
    ),
    Mutation(
        S + "server/base/cpus.py",
        "math.ceil(quota)",
        "math.floor(quota)",
        TS + "test_operation.py::test_the_cpus_of_a_container",
    ),
    Mutation(
        S + "server/base/cpus.py",
        "min(max(cpus // 2, 1), 4)",
        "min(max(cpus // 2, 1), 8)",
        TS + "test_workers.py::test_workers_share_the_cpus",
    ),
    Mutation(
        S + "server/base/call.py",
        "if not self.is_active():",
        "if False:",
        TS + "test_observe.py::test_a_call_that_nobody_waits_for_is_not_begun",
    ),
    Mutation(
        S + "server/base/call.py",
        "time.monotonic() >= self.deadline",
        "False",
        TS + "test_bounded_work.py::test_a_request_waits_for_a_slot_only_until_its_deadline",
    ),
    Mutation(
        S + "server/calls/slots.py",
        "self._queues.pop(key, None)",
        "pass",
        TS + "test_bounded_work.py::test_slots_leave_nothing_behind",
    ),
    Mutation(
        S + "server/calls/slots.py",
        "queue.waiting >= self._most_waiting - self._waiting",
        "queue.waiting >= self._most_waiting",
        TS + "test_bounded_work.py",
    ),
    Mutation(
        S + "server/calls/slots.py", "queue.changed.notify()  # in case", "pass  # in case", TS + "test_bounded_work.py"
    ),
    Mutation(
        S + "server/calls/service.py",
        "(spec.name, runs_in) if runs_in else None",
        "spec.name",
        TS + "test_bounded_work.py::test_requests_that_wait_for_one_engine_hold_up_no_other",
    ),
    Mutation(
        S + "server/calls/examples.py",
        '(self.context or b"") + example',
        'example + (self.context or b"")',
        TS + "test_server.py::test_classify_with_a_shared_context",
    ),
    Mutation(
        S + "server/calls/examples.py",
        "if len(set(widths)) > 1:",
        "if False:",
        TS + "test_bad_requests.py::test_classify",
    ),
    Mutation(
        S + "server/rpc/handlers.py",
        "MAX_MESSAGE = 1024",
        "MAX_MESSAGE = 4096",
        TS + "test_bad_requests.py::test_long_texts_are_cut_as_tensorflow_serving_cuts_them",
    ),
    Mutation(
        S + "server/rpc/handlers.py",
        'encoded[:MAX_MESSAGE].decode(errors="ignore")',
        "text[:MAX_MESSAGE]",
        TS + "test_bad_requests.py::test_long_texts_are_cut_as_tensorflow_serving_cuts_them",
    ),
    Mutation(
        S + "server/rpc/handlers.py",
        "handler if is_quick or not self._full()",
        "handler if not self._full()",
        TS + "test_bounded_work.py::test_probes_are_answered_while_every_thread_is_taken",
    ),
    Mutation(
        S + "server/rpc/handlers.py",
        "remaining is None or remaining > YEAR",
        "remaining is None",
        TS + "test_faults.py::test_a_request_without_a_deadline_waits_its_turn",
    ),
    Mutation(S + "server/rpc/arrivals.py", "context.cancel()", "pass", TS + "test_hostile_bodies.py"),
    Mutation(
        S + "server/rpc/security.py",
        "if method.startswith(_OPEN) or",
        "if",
        TS + "test_security.py::test_what_is_open_and_what_is_not",
    ),
    Mutation(
        S + "server/rpc/security.py",
        'scheme.lower() == "bearer" and any(matches)',
        "any(matches)",
        TS + "test_security.py",
    ),
    Mutation(S + "server/rpc/security.py", "any(matches)", "all(matches)", TS + "test_security.py::test_tokens"),
    Mutation(
        S + "server/base/followed.py",
        "if state != self._state:",
        "if False:",
        TS + "test_operation.py::test_rotated_tokens_are_read",
    ),
    Mutation(
        S + "server/models/versions.py",
        "if loaded.retired and loaded.requests == 0:",
        "if loaded.retired:",
        TS + "test_versions.py::test_a_version_is_unloaded_when_its_last_request_is_done",
    ),
    Mutation(
        S + "server/models/versions.py",
        "if number in self._loaded or label not in self._labels:",
        "if True:",
        TS + "test_models.py",
    ),
    Mutation(
        S + "server/models/choice.py",
        "max(loaded, default=None) if",
        "min(loaded, default=None) if",
        TS + "test_server.py::test_a_version_may_be_named",
    ),
    Mutation(S + "server/models/folders.py", "int(folder.name) >= 2**63", "False", TS + "test_shared_formats.py"),
    Mutation(
        S + "server/models/model.py",
        "self._how.retry_seconds * 2**attempts",
        "self._how.retry_seconds",
        TS + "test_versions.py",
    ),
    Mutation(
        S + "server/models/model.py",
        "if attempts < self._how.retries else",
        "if attempts <= self._how.retries else",
        TS + "test_versions.py",
    ),
    Mutation(
        S + "server/models/model.py",
        "pause = self._how.incomplete_seconds\n",
        "pause = self._how.settle_seconds\n",
        TS + "test_operation.py::test_a_copy_in_alphabetical_order_loses_no_signature",
    ),
    Mutation(
        S + "server/models/model.py",
        "eager = self.versions.use_saved_models",
        "eager = False",
        TS + "test_versions.py::test_where_tensorflow_is_in_use_the_next_version_loads_it_before_it_serves",
    ),
    Mutation(
        S + "server/running/batching.py",
        "if rows > limit:",
        "if rows >= limit:",
        TS + "test_batching.py::test_a_batch_takes_no_more_than_it_may",
    ),
    Mutation(
        S + "server/running/batching.py",
        "for _, answers in sorted(task.answers.items())",
        "for _, answers in reversed(sorted(task.answers.items()))",
        TS + "test_batching.py::test_large_requests_are_split",
    ),
    Mutation(
        S + "server/running/batching.py", "max(deadlines) if len", "min(deadlines) if len", TS + "test_batching.py"
    ),
    Mutation(
        S + "server/running/batching.py", "is_active=lambda: any(", "is_active=lambda: all(", TS + "test_batching.py"
    ),
    Mutation(
        S + "server/running/batching.py",
        "constant_values=array.flat[0]",
        "constant_values=0",
        TS + "test_batching.py::test_shapes_are_filled_up_if_asked_for",
    ),
    Mutation(
        S + "server/running/batch_queues.py",
        "len(queue) + more > parameters.max_enqueued_batches",
        "len(queue) + more >= parameters.max_enqueued_batches",
        TS + "test_batching.py::test_a_full_queue_refuses",
    ),
    Mutation(S + "server/running/batch_queues.py", "self._queues.move_to_end(key)", "pass", TS + "test_batching.py"),
    Mutation(
        S + "server/running/pipelines.py",
        'np.argsort(-answers[self.rank], axis=-1, kind="stable")',
        'np.argsort(answers[self.rank], axis=-1, kind="stable")[:, ::-1]',
        TS + "test_pipelines.py",
    ),
    Mutation(
        S + "server/running/pipelines.py",
        "_image(scores) != [len(labels)]",
        "False",
        TS + "test_pipelines.py::test_a_pipeline_that_does_not_fit_runs_in_tensorflow",
    ),
    Mutation(
        S + "server/running/servable.py",
        "PIPELINE_ROWS = 32",
        "PIPELINE_ROWS = 2**20",
        TS + "test_bounded_work.py::test_large_requests_are_decoded_in_parts",
    ),
    Mutation(
        S + "server/running/servable.py",
        "self._batcher.check(inputs)",
        "pass",
        TS + "test_bounded_work.py::test_rows_are_counted_before_anything_is_decoded",
    ),
    Mutation(
        S + "server/running/signatures.py",
        "IMAGE_RANK = 3",
        "IMAGE_RANK = 5",
        TS + "test_bad_requests.py::test_predict",
    ),
    Mutation(
        S + "server/running/signatures.py",
        "if declared and 0 in shape:",
        "if False:",
        TS + "test_bad_requests.py::test_predict",
    ),
    Mutation(S + "server/running/engines/litert.py", "SLICE_ROWS if all", "1 if all", TS + "test_engines.py"),
    Mutation(
        S + "server/running/engines/litert.py",
        "except (ValueError, RuntimeError):\n            return 1",
        "except (ValueError, RuntimeError):\n            return SLICE_ROWS",
        TS + "test_server.py::test_a_file_made_for_one_image_takes_batches_all_the_same",
    ),
    Mutation(
        S + "server/running/engines/litert.py",
        "network = None\n            raise invalid",
        "raise invalid",
        TS + "test_engines.py::test_an_interpreter_that_failed_is_replaced",
    ),
    Mutation(S + "server/rest/_json.py", "MAX_KEYS = 2**19", "MAX_KEYS = 2**30", TS + "test_hostile_bodies.py"),
    Mutation(
        S + "server/rest/_json.py",
        "if (escape[1] and not escape[2]) or escape[3]:",
        "if escape[3]:",
        TS + "test_rest_json.py::test_bodies_that_are_no_json",
    ),
    Mutation(
        S + "server/rest/_json.py", "_QUOTED = 256", "_QUOTED = 255", TS + "test_rest_json.py::test_quotes_are_cut"
    ),
    Mutation(S + "server/rest/_json.py", "if len(body) < LARGE else", "if True else", TS + "test_rest_json.py"),
    Mutation(
        S + "server/rest/_tensors.py",
        "lowest <= value <= highest",
        "lowest < value < highest",
        TS + "test_rest_json.py::test_each_type",
    ),
    Mutation(S + "server/rest/_tensors.py", "if has_booleans or (dtype", "if (dtype", TS + "test_rest_json.py"),
    Mutation(
        S + "server/rest/_text.py",
        '"%.9g" if array',
        '"%.8g" if array',
        TS + "test_rest_json.py::test_numbers_can_be_read_back",
    ),
    Mutation(
        S + "server/rest/_handler.py",
        "grpc.StatusCode.RESOURCE_EXHAUSTED: 429",
        "grpc.StatusCode.RESOURCE_EXHAUSTED: 503",
        TS + "test_rest.py::test_deadline",
    ),
    Mutation(S + "server/rest/_handler.py", "if len(content) > limit:", "if False:", TS + "test_rest.py::test_gzip"),
    Mutation(
        S + "server/rest/_app.py",
        "held + more > max(self._budget.most // 2, size)",
        "held + more > self._budget.most",
        TS + "test_hostile_bodies.py",
    ),
    Mutation(
        S + "server/rest/_app.py",
        '"Content-Type, Authorization"',
        '"Content-Type"',
        TS + "test_operation.py::test_web_pages_may_send_tokens",
    ),
    Mutation(
        S + "server/rest/_app.py",
        "min(IDLE_SECONDS, until - time.monotonic())",
        "IDLE_SECONDS",
        TS + "test_hostile_bodies.py",
    ),
    Mutation(
        S + "server/rest/_connections.py",
        "oldest = next(iter(self.open))",
        "oldest = connection",
        TS + "test_hostile_bodies.py",
    ),
    Mutation(
        S + "server/telemetry/logging.py",
        "\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069",
        "",
        TS + "test_operation.py::test_nothing_forges_a_line_of_the_text_log",
    ),
    Mutation(
        S + "server/telemetry/json_lines.py",
        'if text.startswith("{"):',
        "if False:",
        TS + "test_operation.py::test_lines_of_libraries_become_objects",
    ),
    Mutation(
        S + "server/telemetry/request_log.py",
        "self._random.random() >= config",
        "self._random.random() > 1.1 * config",
        TS + "test_request_log.py::test_a_share_is_sampled",
    ),
    Mutation(
        S + "server/loading/warmup.py",
        "MOST_RECORDS = 1000",
        "MOST_RECORDS = 1001",
        TS + "test_warmup.py::test_at_most_a_thousand",
    ),
    Mutation(
        S + "server/loading/warmup.py", "for _ in range(iterations):", "for _ in range(1):", TS + "test_warmup.py"
    ),
    Mutation(
        S + "server/settings.py",
        "not abs(value) < LARGEST",
        "False",
        TS + "test_operation.py::test_numbers_have_a_size",
    ),
    # Families, against the references' logits
    Mutation(
        B + "mbconv.py",
        "max(1, int(in_channels * squeeze))",
        "max(1, int(in_channels * expansion * squeeze))",
        "tests/weights/test_golden.py::test_logits_equal_the_references[timm__efficientnet_b0.npz]",
    ),
    Mutation(
        B + "ghost.py",
        "[primary, cheap]",
        "[cheap, primary]",
        "tests/weights/test_golden.py::test_logits_equal_the_references[timm__ghostnet_100.npz]",
    ),
    Mutation(
        B + "sandglass.py",
        "x = conv_bn(x, reduced, 1, style=style, name=",
        'x = conv_bn(x, reduced, 1, activation="relu6", style=style, name=',
        "tests/weights/test_golden.py::test_logits_equal_the_references[ref__mobilenext_100.npz]",
    ),
    Mutation(
        B + "inverted_residual.py",
        'activation: str = "relu6"',
        'activation: str = "relu"',
        "tests/weights/test_golden.py::test_logits_equal_the_references[timm__mobilenetv2_100.npz]",
    ),
    Mutation(
        B + "mobile_mqa.py",
        "key_dim**-0.5",
        "key_dim**-1.0",
        "tests/blocks/test_blocks.py::test_mobile_mqa_is_multi_query_attention",
    ),
    Mutation(B + "residual.py", "drop_path * index / last", "drop_path * index / blocks", TA + "test_convnext.py"),
    Mutation(
        B + "convnext.py",
        "EPSILON = 1e-6",
        "EPSILON = 1e-5",
        "tests/weights/test_golden.py::test_logits_equal_the_references[timm__convnextv2_atto.npz]",
    ),
    Mutation(
        B + "shuffle.py",
        "ChannelSlice(0, half, name=",
        "ChannelSlice(half, name=",
        "tests/weights/test_golden.py::test_logits_equal_the_references[ref__shufflenet_v2_x0_5.npz]",
    ),
    Mutation(
        B + "dense.py",
        "norm_act(x, style=style, name=name)\n    y = conv_bn(y, bottleneck",
        "batch_norm(x, style=style, name=f'{name}_norm')\n    y = conv_bn(y, bottleneck",
        "tests/weights/test_golden.py::test_logits_equal_the_references[timm__densenet121.npz]",
    ),
    Mutation(B + "repvgg.py", "max(1, channels // 16)", "max(1, channels // 8)", TA + "test_repvgg.py"),
    Mutation(
        B + "pool.py",
        "((0, stride - 1), (0, stride - 1))",
        "((stride - 1, 0), (stride - 1, 0))",
        "tests/blocks/test_pool.py",
    ),
    Mutation(
        B + "uib.py", "stride=1 if middle else stride", "stride=stride if middle else 1", "tests/blocks/test_blocks.py"
    ),
    Mutation(B + "family.py", '"dropout": bool(dropout),', "", "tests/blocks/test_ignored.py"),
    Mutation(
        B + "family.py",
        "if pooling is not None and (include_top or features_only):",
        "if False:",
        "tests/blocks/test_ignored.py",
    ),
    Mutation(
        A + "efficientnet.py",
        "math.ceil(row.repeats * depth)",
        "round(row.repeats * depth)",
        TA + "test_efficientnet.py",
    ),
    Mutation(
        A + "efficientnet.py",
        "alpha: float = 1.2, beta: float = 1.1",
        "alpha: float = 1.1, beta: float = 1.2",
        "tests/blocks/test_ignored.py::test_compound_scaling_is_public",
    ),
    Mutation(
        A + "ghostnet.py",
        "squeezed=make_divisible(expanded / 4, 4)",
        "squeezed=make_divisible(expanded / 4, 8)",
        TA + "test_ghostnet.py",
    ),
    Mutation(A + "googlenet.py", "epsilon=1e-3, momentum=0.9", "epsilon=1e-5, momentum=0.9", TA + "test_googlenet.py"),
    Mutation(
        "keraslight/weights/files.py",
        '"filters" if "filters" in config else "units"',
        '"units"',
        "tests/weights/test_loader.py::test_another_number_of_classes_starts_a_fresh_head",
    ),
    Mutation(
        "keraslight/weights/files.py",
        'if not name.endswith("num_batches_tracked")}',
        "}",
        "tests/weights/test_loader.py::test_safetensors_with_torch_names",
    ),
    # Fixes, switched off
    Mutation(
        C + "_tfmot/int8_graph.py",
        "offset.assign(_told_apart(offset.numpy()))",
        "pass",
        TC + "test_int8_dead.py::test_dead_channels_keep_their_biases",
    ),
    Mutation(C + "_tfmot/saved.py", "held.hold((", "(lambda kernel: None)((", TC + "test_load_quantized.py"),
    Mutation(C + "_tfmot/saved.py", "layer.link(layers[layer.norm_name])", "pass", TC + "test_load_quantized.py"),
    Mutation(
        C + "_tfmot/saved.py",
        "for name, value in notes.items():",
        "for name, value in ():",
        TC + "test_load_quantized.py",
    ),
    Mutation(
        "keraslight/rewrite/xnnpack.py",
        "_TINY = 1e-37",
        "_TINY = 0.0",
        TC + "test_int8_dead.py::test_normalized_zeros_are_numbers_in_float32",
    ),
    Mutation(
        "keraslight/rewrite/xnnpack.py",
        'pooling.padding == "valid" and',
        "",
        TC + "test_int8_sweep.py::test_int8_answers_are_right",
    ),
    Mutation(
        "keraslight/rewrite/_pieces.py",
        "max(0, span + taps - size) // 2 if same",
        "-(-max(0, span + taps - size) // 2) if same",
        "tests/rewrite/test_pieces.py",
    ),
    Mutation("keraslight/rewrite/slices.py", "len(slices) == len(parts) and", "", TC + "test_selection.py"),
    Mutation(
        "keraslight/rewrite/floats.py",
        'if tensor.dtype == "uint8":\n',
        "if False:\n",
        TC + "test_int8_dead.py::test_models_of_uint8_fuse",
    ),
    Mutation(
        "keraslight/graph/names.py",
        "return f\"{letters.lstrip('_->')[:64] or 'layer'}-{zlib.crc32(name.encode(errors='surrogatepass')):08x}\"",
        "return letters",
        "tests/export/test_any_model.py::test_names_that_differ_stay_apart",
    ),
    Mutation(
        "keraslight/graph/pixels.py",
        "scale * step[0], shift * step[0] + step[1], True",
        "scale * step[0], shift + step[1], True",
        TC + "test_int8_dead.py",
    ),
    Mutation(
        "keraslight/graph/pixels.py",
        "1 < max(high for _, high in ends) <= 255",
        "max(high for _, high in ends) <= 255",
        TC + "test_int8_dead.py::test_other_inputs_are_no_pixels",
    ),
    Mutation(
        "keraslight/graph/ends.py",
        'or len(outputs) < 2 or "classifier" not in outputs',
        'or "classifier" not in outputs',
        TT + "test_settled.py",
    ),
    Mutation("keraslight/export/_memory.py", "trim(0)", "pass", "tests/export/test_memory.py"),
    Mutation(
        "keraslight/_files.py",
        "temporary.unlink(missing_ok=True)",
        "pass",
        "tests/export/test_litert.py::test_a_failed_write_leaves_the_old_file",
    ),
    Mutation(
        "keraslight/cli/_common.py", '"raw": (0.0, 1 / 255),', '"raw": (0.0, 1.0),', "tests/cli/test_foreign_files.py"
    ),
    Mutation(
        "keraslight/cli/_common.py",
        '"symmetric": (0.5, 0.5),',
        '"symmetric": (0.0, 0.5),',
        "tests/cli/test_foreign_files.py",
    ),
    Mutation(
        "keraslight/cli/_common.py",
        "no_wrap=number == 0",
        "no_wrap=False",
        "tests/cli/test_first_contact.py::test_tables_never_cut_the_names_of_layers",
    ),
    Mutation("keraslight/cli/versions.py", "before = metrics", "pass", "tests/cli/test_versions_command.py"),
    Mutation(
        "keraslight/cli/train.py",
        "min(recipe.warmup, epochs - 1)",
        "recipe.warmup",
        "tests/cli/test_cli.py::test_train_reports_its_best_epoch",
    ),
    Mutation(
        S + "client/_pixels.py",
        "value / 256",
        "value / 257",
        "tests/test_image_formats.py::test_sixteen_bits_and_transparent_gifs_are_the_same_for_the_client",
    ),
    Mutation(
        S + "client/_pixels.py",
        '"black"), image).convert("RGB")',
        '"white"), image).convert("RGB")',
        "tests/test_image_formats.py::test_sixteen_bits_and_transparent_gifs_are_the_same_for_the_client",
    ),
    Mutation(
        S + "client/_pixels.py",
        "image = ImageOps.exif_transpose(image)",
        "pass",
        "tests/serving/test_client.py::test_pil_images_of_every_mode_can_be_sent",
    ),
    Mutation(
        S + "startup.py", 'in ("0", "1")', 'in ("0",)', TS + "test_startup.py::test_whoever_asks_for_messages_gets_them"
    ),
    Mutation(
        S + "startup.py",
        "_HARMLESS if has_gpu else _HARMLESS + _HARMLESS_WITHOUT_GPU",
        "_HARMLESS + _HARMLESS_WITHOUT_GPU",
        TS + "test_startup.py",
    ),
    Mutation(
        S + "server/running/engines/_stoppable.py",
        "values = [self._tf.identity(tensor) for tensor in fetches]",
        "values = fetches",
        TS + "test_bounded_work.py",
    ),
    Mutation(
        S + "server/running/engines/_stoppable.py",
        "self._at(place, self._reset)",
        "pass",
        TS + "test_bounded_work.py::test_a_call_that_ended_ends_no_other",
    ),
)
