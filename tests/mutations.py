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
        "tests/weights/test_golden.py::test_logits_equal_the_references[timm:mobilenetv4_conv_large-rect]",
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
    Mutation(
        N + "receptive_field.py",
        "(v.size, h.size)",
        "(h.size, v.size)",
        "tests/analysis/test_receptive_field.py::test_branches_padding_and_cropping",
    ),
    Mutation(N + "receptive_field.py", "margin = span // 2", "margin = span", TN + "test_receptive_field.py"),
    Mutation(
        N + "receptive_field.py",
        "+ span + 1 - side, 0) // 2",
        "+ span + 1 - side + 1, 0) // 2",
        "tests/analysis/test_receptive_field.py::test_branches_padding_and_cropping",
    ),
    Mutation(
        N + "receptive_field.py",
        "max(span + 1 - stride, 0) // 2 if",
        "max(span + 1 - stride, 0) if",
        "tests/analysis/test_receptive_field.py::test_layers_that_make_maps_larger",
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
        "tests/compress/test_fuse.py::test_merges_linear_layers_where_that_saves_work",
    ),
    Mutation(
        R + "_fuse.py",
        "(reader.unpadded or not np.any(folded[1]))",
        "True",
        "tests/compress/test_fuse.py::test_a_factor_alone_may_meet_padding_and_an_offset_may_not",
    ),
    Mutation(
        R + "_fuse.py",
        "> first.kernel.size + second.size",
        "> 1e9",
        "tests/compress/test_fuse.py::test_merges_linear_layers_where_that_saves_work",
    ),
    Mutation(
        C + "_tfmot/pruning.py",
        "power=3",
        "power=1",
        "tests/compress/test_pruning.py::test_sparsity_grows_by_the_papers_cube",
    ),
    Mutation(
        C + "_tfmot/pruning.py",
        "power=3",
        "power=2",
        "tests/compress/test_pruning.py::test_sparsity_grows_by_the_papers_cube",
    ),
    Mutation(
        C + "pruning/callback.py",
        "end = max(int(self.end_fraction",
        "end = max(int(0.5 * self.end_fraction",
        "tests/compress/test_pruning.py::test_fractions_are_shares_of_all_steps",
    ),
    Mutation(
        C + "pruning/settings.py",
        "min(share + min(0.5 / count, 0.01), max(share, 0.9999))",
        "share",
        "tests/compress/test_pruning.py::test_final_sparsity_is_reached_whatever_the_frequency",
    ),
    Mutation(C + "_tfmot/quantizers.py", "DECAY = 0.99", "DECAY = 0.9", TC + "test_quantizers.py"),
    Mutation(
        C + "clustering/callback.py",
        "keep_zero = self.preserve_sparsity and zeros > 0",
        "keep_zero = False",
        "tests/compress/test_clustering.py::test_training_gives_the_librarys_centroids_and_weights",
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
    Mutation(
        T + "_optimizer.py",
        "if len(v.shape) <= 1]",
        "if len(v.shape) <= 4]",
        "tests/training/test_trainer.py::test_weight_decay_spares_vectors",
    ),
    Mutation(
        T + "_loss.py",
        "ClassificationLoss(label_smoothing,",
        "ClassificationLoss(0.0,",
        "tests/training/test_trainer.py::test_probabilities_and_logits_give_the_same_loss",
    ),
    Mutation(
        T + "_data.py",
        "seed=tf.stack([seed, epoch])",
        "seed=tf.stack([seed, seed])",
        "tests/training/test_data.py::test_training_batches_repeat_for_a_seed_and_differ_between_epochs",
    ),
    Mutation(
        T + "_data.py",
        "tf.stack([tf.constant(seed, tf.int64), step])",
        "tf.stack([step, step])",
        "tests/training/test_data.py::test_the_same_image_is_augmented_differently_every_time",
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
        "keraslight/weights/loader.py",
        "np.float32(3 / channels)",
        "np.float32(1.0)",
        "tests/weights/test_loader.py::test_another_number_of_channels_adapts_the_first_convolution",
    ),
    # Server and client
    Mutation(
        S + "server/telemetry/tfrecord.py",
        "crc >> 15 | crc << 17",
        "crc >> 17 | crc << 15",
        "tests/serving/test_request_log.py::test_tensorflow_reads_the_log",
    ),
    Mutation(
        S + "server/running/batching.py",
        "array[end - size : end]",
        "array[:size]",
        "tests/serving/test_batching.py::test_those_that_wait_run_together",
    ),
    Mutation(
        S + "server/running/batching.py",
        "if size >= rows), rows)",
        "if size > rows), rows)",
        "tests/serving/test_batching.py::test_batches_are_filled_up_to_an_allowed_size",
    ),
    Mutation(
        S + "client/_retry.py",
        "2 ** (len(sent) - 1)",
        "2 ** len(sent)",
        "tests/serving/test_client_calls.py::test_pauses_are_drawn_from_the_whole_range",
    ),
    Mutation(
        S + "client/_retry.py",
        "min(self._left + self._refill, self._most)",
        "self._left + self._refill",
        "tests/serving/test_client_calls.py::test_the_budget_never_exceeds_its_start",
    ),
    Mutation(
        S + "client/_endpoints.py",
        "_TROUBLES = 3",
        "_TROUBLES = 4",
        "tests/serving/test_client_calls.py::test_an_endpoint_is_skipped_after_three_troubles",
    ),
    # Augmentation
    Mutation(T + "_augmentation.py", "math.radians(self.rotate_degrees)", "0.0", TT + "test_augmentation.py"),
    Mutation(
        T + "_augmentation.py", "1.0 + draws[:, 1] * self.zoom", "1.0 + draws[:, 1] * 0.0", TT + "test_augmentation.py"
    ),
    Mutation(
        T + "_augmentation.py",
        "(draws[:, 2] * self.shift + left) * width",
        "(draws[:, 2] * self.shift + left) * height",
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
        T + "_optimizer.py",
        "recipe.warmup * steps // recipe.accumulate",
        "0",
        TT + "test_trainer.py::test_the_learning_rate_warms_up_and_decays_to_zero",
    ),
    Mutation(
        T + "_optimizer.py",
        "recipe.learning_rate / (warmup + 1)",
        "0.0",
        TT + "test_settled.py::test_the_best_epoch_is_chosen_by_settled_batch_norms",
    ),
    Mutation(
        T + "_optimizer.py",
        "max(updates - warmup, 1)",
        "updates",
        TT + "test_trainer.py::test_the_learning_rate_warms_up_and_decays_to_zero",
    ),
    Mutation(
        T + "_trainer.py",
        '(row["val_accuracy"], -row["val_loss"])',
        '(row["val_accuracy"], row["val_loss"])',
        "tests/training/test_trainer.py::test_of_equal_accuracies_the_smaller_loss_is_better_and_then_the_first",
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
        "tests/training/test_trainer.py::test_patience_stops_early_and_stays_stopped",
    ),
    Mutation(
        T + "_trainer.py",
        "settle(self._learning, (images",
        "(lambda *_: 0)(self._learning, (images",
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
        T + "_optimizer.py",
        "layer_decay ** (last - groups",
        "layer_decay ** (groups",
        TT + "test_recipe_fields.py::test_rates_and_decay_fall_from_group_to_group",
    ),
    Mutation(
        T + "_optimizer.py",
        "self.learning_rate * self.weight_decay * self._scales",
        "self.learning_rate * self.weight_decay + 0 * self._scales",
        TT + "test_recipe_fields.py::test_rates_and_decay_fall_from_group_to_group",
    ),
    Mutation(
        T + "_average.py",
        "for weight in model.weights if",
        "for weight in model.trainable_weights if",
        TT + "test_recipe_fields.py::test_the_average_has_statistics_too_and_exchanges_exactly",
    ),
    Mutation(
        T + "_average.py",
        "(1.0 + count) / (10.0 + count)",
        "(1.0 + count) / (1.0 + count)",
        TT + "test_recipe_fields.py::test_the_average_has_statistics_too_and_exchanges_exactly",
    ),
    Mutation(
        T + "_mixing.py",
        "share *= tf.reduce_mean(tf.cast(kept, tf.float32), axis=(1, 2))",
        "share *= lam",
        TT + "test_recipe_fields.py::test_boxes_have_the_area_that_the_target_says",
    ),
    Mutation(
        T + "_mixing.py",
        "tf.constant(alpha, tf.float64)",
        "tf.constant(2 * alpha, tf.float64)",
        TT + "test_recipe_fields.py::test_shares_are_drawn_from_beta",
    ),
    Mutation(
        T + "_progressive.py",
        "number / (self.stages - 1)",
        "(number + 1) / self.stages",
        TT + "test_recipe_fields.py::test_stages_are_those_of_table_6",
    ),
    Mutation(
        T + "_phases.py",
        "variable.trainable = False",
        "pass",
        TT + "test_recipe_fields.py::test_frozen_layers_stay_and_their_statistics_follow",
    ),
    Mutation(
        T + "_trainer.py",
        "self._folder.save_state(self.model, self._history, self._identity, more)",
        "self._folder.save_state(self.model, self._history, self._identity)",
        TT + "test_recipe_fields.py::test_every_field_resumes_exactly_after_any_epoch[2]",
    ),
    Mutation(
        T + "_rand_augment.py",
        "tf.minimum((step[:, None] // 2 + before)",
        "tf.minimum((before)",
        TT + "test_rand_augment.py",
    ),
    Mutation(T + "_rand_augment.py", "4.0 * inner) / 13.0", "inner) / 9.0", TT + "test_rand_augment.py"),
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
    ),  # Layers
    # Layers
    Mutation(L + "layer_norm.py", "x * self.gamma + self.beta", "x * self.gamma", TL + "test_norms.py"),
    Mutation(
        L + "layer_norm.py",
        "epsilon: float = 1e-6",
        "epsilon: float = 1e-5",
        "tests/layers/test_norms.py::test_epsilons_are_those_of_the_convnexts",
    ),
    Mutation(
        L + "grn.py",
        "epsilon: float = 1e-6",
        "epsilon: float = 1e-3",
        "tests/layers/test_norms.py::test_epsilons_are_those_of_the_convnexts",
    ),
    Mutation(
        L + "grn.py",
        "ops.mean(norms, axis=-1",
        "ops.max(norms, axis=-1",
        "tests/layers/test_norms.py::test_grn_is_algorithm_1",
    ),
    Mutation(
        L + "local_response_norm.py",
        "** -self.beta",
        "** -1.0",
        TA + "test_alexnet.py::test_local_response_norm_is_the_papers",
    ),
    Mutation(
        L + "batch_norm.py",
        "variance *= (pixels - 1) / pixels",
        "pass",
        "tests/layers/test_batch_norm.py::test_values_statistics_and_gradients_are_the_stock_layers",
    ),
    Mutation(
        L + "batch_norm.py",
        "moving * self.momentum + value * (1 - self.momentum)",
        "moving * (1 - self.momentum) + value * self.momentum",
        "tests/layers/test_batch_norm.py::test_values_statistics_and_gradients_are_the_stock_layers",
    ),
    Mutation(
        L + "batch_norm.py",
        "if training and self.trainable:",
        "if training:",
        "tests/layers/test_batch_norm.py::test_frozen_layers_use_their_statistics",
    ),
    Mutation(
        L + "batch_norm.py",
        "and self.axis in (-1, 3)",
        "",
        "tests/layers/test_batch_norm.py::test_what_the_kernel_can_not_do_runs_as_in_keras",
    ),
    Mutation(
        L + "deformable_conv.py",
        "(1, (1 - down) * right)",
        "(1, down * (1 - right))",
        "tests/layers/test_deformable_conv.py::test_is_torchvisions",
    ),
    Mutation(
        L + "deformable_conv.py",
        "n // k if axis == 0 else n % k",
        "n % k if axis == 0 else n // k",
        "tests/layers/test_deformable_conv.py::test_is_torchvisions",
    ),
    Mutation(
        L + "deformable_conv.py",
        'ops.clip(place, -1.0, ops.cast(side, "float32"))',
        'ops.clip(place, 0.0, ops.cast(side, "float32"))',
        "tests/layers/test_deformable_conv.py::test_offsets_shift_the_map_and_outside_is_zero",
    ),
    Mutation(
        L + "conditional_conv.py",
        "ops.sigmoid(ops.matmul",
        "ops.softmax(ops.matmul",
        "tests/layers/test_conditional_conv.py::test_is_the_papers_equation",
    ),
    Mutation(
        L + "conditional_conv.py",
        "for i in range(k) for j in range(k)",
        "for j in range(k) for i in range(k)",
        "tests/layers/test_conditional_conv.py::test_is_the_papers_equation",
    ),
    Mutation(
        L + "equivariant.py",
        "ops.flip(ops.swapaxes(kernel, 0, 1), axis=0)",
        "ops.flip(ops.swapaxes(kernel, 0, 1), axis=1)",
        "tests/layers/test_equivariant.py::test_a_turned_input_turns_the_maps_and_moves_the_orientations",
    ),
    Mutation(
        L + "unpooling.py",
        "ops.reshape(row * width",
        "ops.reshape(row * height",
        "tests/layers/test_unpooling.py::test_pooling_and_unpooling_are_pytorchs",
    ),
    Mutation(
        L + "unpooling.py",
        "shift - self.padding, 0, side - 1)",
        "shift - self.padding, -1, side)",
        "tests/layers/test_unpooling.py::test_a_window_of_minus_infinities_has_an_index_on_the_map",
    ),
    Mutation(
        L + "_convolution.py",
        "return total // 2, total - total // 2",
        "return total - total // 2, total // 2",
        "tests/layers/test_deformable_conv.py::test_starts_as_the_plain_convolution",
    ),
    Mutation(L + "code_distance.py", "2 * ops.matmul", "ops.matmul", TA + "test_lenet.py"),
    Mutation(
        L + "channel_slice.py",
        "self.start : self.stop : self.step",
        "self.start : self.stop",
        TL + "test_channel_slice.py",
    ),
    # Blocks
    Mutation(
        B + "attention.py",
        '("rows", "columns")',
        '("columns", "rows")',
        "tests/blocks/test_attention.py::test_coordinate_attention_is_equations_4_to_9",
    ),
    Mutation(
        B + "attention.py",
        "layers.GlobalMaxPooling2D)):",
        "layers.GlobalAveragePooling2D)):",
        "tests/blocks/test_attention.py::test_cbam_is_equations_1_to_3",
    ),
    Mutation(
        B + "attention.py",
        'y = activate(y, activation, name=f"{name}_reduce_act")',
        "pass",
        "tests/blocks/test_attention.py::test_squeeze_excite",
    ),
    Mutation(
        B + "conv.py",
        "kernel // 2, name=",
        "(kernel - 1) // 2 + 1, name=",
        "tests/blocks/test_blocks.py::test_symmetric_and_same_padding_differ_where_pytorch_and_tensorflow_do",
    ),
    Mutation(
        B + "conv.py",
        "rounded + divisor if",
        "rounded if",
        "tests/blocks/test_blocks.py::test_make_divisible",
    ),
    Mutation(
        B + "conv.py",
        "return kernel + (kernel - 1) * (dilation - 1)",
        "return kernel + kernel * (dilation - 1)",
        "tests/blocks/test_blocks.py::test_effective_kernel_size_is_what_a_dilated_kernel_spans",
    ),
    Mutation(
        B + "conv.py",
        "if kernel % 2 == 0 and style.padding",
        "if False and style.padding",
        "tests/blocks/test_ignored.py::test_even_kernels_with_a_stride_and_symmetric_padding_are_refused",
    ),
    Mutation(
        B + "shuffle.py",
        "layers.Permute((1, 3, 2)",
        "layers.Permute((1, 2, 3)",
        "tests/blocks/test_blocks.py::test_a_channel_shuffle_deals_the_groups_out",
    ),  # Counting and maps
    # Maps and ranges
    Mutation(
        N + "receptive_field.py",
        "-layer.cropping[axis][0]",
        "layer.cropping[axis][0]",
        TN + "test_receptive_field.py::test_branches_padding_and_cropping",
    ),  # Compression
    Mutation(
        C + "_tfmot/quantizers.py",
        "tf.minimum(tf.reduce_min(inputs), 0.0)",
        "tf.reduce_min(inputs)",
        "tests/compress/test_quantizers.py::test_ranges_of_activations_on_one_side_of_zero_reach_it",
    ),
    Mutation(
        C + "_tfmot/quantizers.py",
        "else min(float(low), 0.0)",
        "else float(low)",
        "tests/compress/test_quantizers.py::test_ranges_of_activations_on_one_side_of_zero_reach_it",
    ),  # Client
    # Client
    Mutation(
        S + "client/_retry.py",
        "_SHARES = 4",
        "_SHARES = 8",
        TS + "test_client_calls.py::test_a_server_that_never_answers_keeps_only_a_quarter_of_the_time_for_itself",
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
        S + "wire/tensors.py",
        "if count * dtype.itemsize > max_bytes:",
        "if count > max_bytes:",
        "tests/serving/test_wire.py::test_the_limit_is_one_of_bytes",
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
        "tests/serving/test_hostile_bodies.py::test_senders_together_have_the_budget_and_each_half_of_it",
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
        "tests/serving/test_bounded_work.py::test_requests_of_one_model_take_half_of_the_places_that_are_free",
    ),
    Mutation(
        S + "server/calls/slots.py",
        "self._waiting -= 1",
        "pass",
        "tests/serving/test_bounded_work.py::test_slots_leave_nothing_behind",
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
        "tests/serving/test_rest_json.py::test_a_feature_of_an_example_counts_more_than_a_shared_one",
    ),
    Mutation(
        S + "server/calls/examples.py",
        "if len(set(widths)) > 1:",
        "if False:",
        "tests/serving/test_rest_json.py::test_classes_and_scores_of_different_widths_are_refused",
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
        "tests/serving/test_hostile_bodies.py::test_texts_are_cut_by_their_bytes_between_characters",
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
    Mutation(
        S + "server/rpc/arrivals.py",
        "context.cancel()",
        "pass",
        "tests/serving/test_hostile_bodies.py::test_a_message_that_never_comes_is_given_up",
    ),
    Mutation(
        S + "server/rpc/security.py",
        "if method.startswith(_OPEN) or",
        "if",
        "tests/serving/test_security.py::test_what_is_open_and_what_is_not",
    ),
    Mutation(
        S + "server/rpc/security.py",
        'scheme.lower() == "bearer" and any(matches)',
        "any(matches)",
        "tests/serving/test_security.py::test_tokens",
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
        "tests/serving/test_models.py::test_a_version_is_closed_after_the_last_of_its_requests",
    ),
    Mutation(
        S + "server/models/versions.py",
        "if number in self._loaded or label not in self._labels:",
        "if True:",
        "tests/serving/test_models.py::test_a_known_label_waits_for_its_version_and_a_new_one_does_not",
    ),
    Mutation(
        S + "server/models/choice.py",
        "max(loaded, default=None) if",
        "min(loaded, default=None) if",
        "tests/serving/test_models.py::test_the_highest_of_several_loaded_versions_answers",
    ),
    Mutation(S + "server/models/folders.py", "int(folder.name) >= 2**63", "False", TS + "test_shared_formats.py"),
    Mutation(
        S + "server/models/model.py",
        "self._how.retry_seconds * 2**attempts",
        "self._how.retry_seconds",
        "tests/serving/test_models.py::test_a_failed_version_is_tried_again_with_growing_pauses",
    ),
    Mutation(
        S + "server/models/model.py",
        "if attempts < self._how.retries else",
        "if attempts <= self._how.retries else",
        "tests/serving/test_models.py::test_tries_end",
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
        "tests/serving/test_bounded_work.py::test_rows_are_counted_before_anything_is_decoded",
    ),
    Mutation(
        S + "server/running/batching.py",
        "for _, answers in sorted(task.answers.items())",
        "for _, answers in reversed(sorted(task.answers.items()))",
        TS + "test_batching.py::test_large_requests_are_split",
    ),
    Mutation(
        S + "server/running/batching.py",
        "max(deadlines) if len",
        "min(deadlines) if len",
        "tests/serving/test_batching.py::test_a_batch_runs_for_as_long_as_one_of_its_callers_waits",
    ),
    Mutation(
        S + "server/running/batching.py",
        "is_active=lambda: any(",
        "is_active=lambda: all(",
        "tests/serving/test_batching.py::test_a_batch_runs_for_as_long_as_one_of_its_callers_waits",
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
    Mutation(
        S + "server/running/batch_queues.py",
        "parameters.batch_timeout_micros / 1e6",
        "parameters.batch_timeout_micros / 1e3",
        TS + "test_batching.py::test_an_open_batch_waits_for_its_time",
    ),
    Mutation(
        S + "server/running/pipelines.py",
        'np.argsort(-answers[self.rank], axis=-1, kind="stable")',
        'np.argsort(answers[self.rank], axis=-1, kind="stable")[:, ::-1]',
        TS + "test_pipelines.py",
    ),
    Mutation(
        S + "server/running/servable.py",
        "self._batcher.check(inputs)",
        "pass",
        TS + "test_bounded_work.py::test_rows_are_counted_before_anything_is_decoded",
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
        "tests/test_tasks.py::test_scores",
    ),
    Mutation(
        "keraslight/_tasks.py",
        "np.exp(values - values.max(-1, keepdims=True))",
        "np.exp(values)",
        "tests/test_tasks.py::test_scores",
    ),
    Mutation(
        "keraslight/_tasks.py",
        "np.tanh(0.5 * values)",
        "np.tanh(values)",
        "tests/test_tasks.py::test_losses_are_those_of_the_formulas",
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
        "tests/test_tasks.py::test_a_task_is_read_off_the_end",
    ),
    Mutation("keraslight/labels.py", "np.argsort(-scores, axis=1", "np.argsort(scores, axis=1", "tests/test_labels.py"),
    Mutation("keraslight/labels.py", '.split("\\n"))[\n        :-1\n    ]', '.split("\\n"))', "tests/test_labels.py"),
    Mutation(
        S + "labels.py",
        'content.decode("utf-8-sig")',
        'content.decode("utf-8")',
        "tests/test_label_kinds.py::test_label_files",
    ),
    Mutation(
        S + "labels.py",
        'text.split("\\n")]\n    while',
        "text.splitlines()]\n    while",
        "tests/test_label_kinds.py::test_label_files",
    ),
    Mutation(
        S + "labels.py",
        "== list(range(len(labels))):\n        labels =",
        "== list(range(1, 1 + len(labels))):\n        labels =",
        "tests/test_label_kinds.py::test_label_files",
    ),
    Mutation(
        S + "labels.py",
        "while labels and not labels[-1].strip():",
        "while False:",
        "tests/test_label_kinds.py::test_label_files",
    ),
    Mutation(
        S + "labels.py",
        'if "\\n" in label or "\\r" in label:',
        'if "\\n" in label:',
        "tests/test_label_kinds.py::test_bad_names_are_refused_at_every_door",
    ),
    Mutation(
        "keraslight/_near.py",
        "len(written) / 3",
        "len(written)",
        "tests/test_catalogue.py::test_a_name_like_no_other_refers_to_the_list",
    ),
    Mutation(
        "keraslight/_near.py",
        'lower().replace("+", "plus")',
        "lower()",
        "tests/test_catalogue.py::test_a_misspelled_name_finds_its_family_first",
    ),
    Mutation(
        "keraslight/_near.py",
        "return 0.9",
        "return 5.0",
        "tests/test_catalogue.py::test_a_misspelled_name_finds_its_family_first",
    ),
    Mutation(
        "keraslight/_near.py",
        "if len(written) > 2 else 0.0",
        "if True else 0.0",
        "tests/test_catalogue.py::test_a_name_like_no_other_refers_to_the_list",
    ),
    Mutation(
        "keraslight/catalogue.py",
        '("hf-hub:", "hf_hub:")',
        '("hf-hub:",)',
        "tests/test_catalogue.py::test_timms_hub_ids_are_published_ids",
    ),
    Mutation(
        "keraslight/catalogue.py",
        "return sorted(fnmatch.filter(_rows(), pattern))",
        "return fnmatch.filter(_rows(), pattern)",
        "tests/test_zoo.py::test_list_models_takes_wildcards",
    ),
    # Images
    Mutation(
        "keraslight/_image_files.py",
        "[[3, 4, 7, 8], [2, 3, 6, 7]]",
        "[[3, 4, 6, 7], [2, 3, 7, 8]]",
        "tests/test_image_files.py",
    ),
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
        "keraslight/_image_files.py",
        "8 + size + size % 2 if webp",
        "8 + size if webp",
        "tests/test_image_formats.py::test_orientations_of_png_and_webp",
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
    # Memory, jumps
    Mutation(
        "keraslight/export/_memory.py",
        "    context.context().clear_kernel_cache()\n",
        "",
        "tests/export/test_memory.py::test_memory_is_flat_over_many_conversions",
    ),
    Mutation(
        "keraslight/graph/kinds.py",
        "math.prod(sides) < 16",
        "math.prod(sides) < 2",
        TC + "test_int8_sweep.py::test_int8_answers_of_a_sample_are_right",
    ),
    Mutation(
        R + "xnnpack.py",
        "return callable(activation) and function_name(activation) in JUMPS",
        "return False",
        TC + "test_int8_sweep.py::test_int8_answers_of_a_sample_are_right",
    ),
    Mutation(
        "keraslight/graph/ends.py",
        "    remember_task(deployed, remembered_task(model))\n",
        "",
        "tests/export/test_auxiliary.py::test_the_task_stays",
    ),
)
