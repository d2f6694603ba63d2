"""What a recipe's fields do to a training, and that each of them resumes exactly."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keraslight.errors import InvalidArgumentError, TrainingError
from keraslight.graph import of_size
from keraslight.layers import ImageNormalization
from keraslight.training import (
    Augmentation,
    ClassificationLoss,
    Distillation,
    ImageData,
    Progressive,
    Recipe,
    find_learning_rate,
    train,
)
from keraslight.training._average import Average
from keraslight.training._mixing import Mixing
from keraslight.training._optimizer import LayerwiseAdamW, layer_groups, make_optimizer
from keraslight.training._phases import entered, phases
from tests.training.conftest import SMALL
from tests.training.test_trainer import Kill, fresh, numbers


@pytest.fixture(scope="module")
def build_open():
    """A builder of a small net for images of any size, whose layers are named as the zoo's."""

    def build(classes=3, *, outputs="softmax", dropout=0.2):
        layers = keras.layers
        images = keras.Input((None, None, 1))
        x = layers.Conv2D(6, 3, strides=2, use_bias=False, name="stem")(ImageNormalization(SMALL)(images))
        x = layers.BatchNormalization(momentum=0.9, name="stem_bn")(x)
        for block in range(2):
            x = layers.Conv2D(8, 3, padding="same", name=f"stage0_block{block}_conv")(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"stage0_block{block}_bn")(layers.ReLU()(x))
        x = layers.Dropout(dropout)(layers.GlobalMaxPooling2D()(x)) if dropout else layers.GlobalMaxPooling2D()(x)
        return keras.Model(images, layers.Dense(classes, activation=outputs, name="classifier")(x))

    return build


EVERYTHING = Recipe(
    epochs=2,
    batch_size=8,
    learning_rate=0.01,
    warmup_epochs=1,
    augmentation=Augmentation(shift=0.05, crop=(0.7, 1.0), rand_layers=1, erase=0.2),
    seed=5,
    final_learning_rate=0.1,
    beta_1=0.8,
    epsilon=1e-6,
    clip_norm=1.0,
    accumulate=2,
    ema=0.99,
    mixup=0.2,
    cutmix=1.0,
    mix_probability=0.7,
    class_weights="balanced",
    layer_decay=0.8,
    freeze="stem*",
    freeze_epochs=1,
    freeze_batch_norm=True,
    progressive=Progressive(2, (8, 12), (2, 9), (0.1, 0.4), (0.5, 1.0), (0.1, 0.3)),
)


def state(folder):
    with np.load(folder / "last.npz") as archive:
        return {name: archive[name] for name in archive.files if name != "meta"}


@pytest.mark.parametrize("epochs", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_field_resumes_exactly_after_any_epoch(build_open, data, tmp_path, epochs):
    recipe = EVERYTHING.replace(epochs=epochs)
    whole = train(fresh(build_open), data, recipe, run_dir=tmp_path / "whole", progress=False)
    killed = tmp_path / "killed"
    for epoch in range(1, epochs):  # among them where freezing ends, and the border of the stages
        with pytest.raises(KeyboardInterrupt):
            train(
                fresh(build_open, epoch),
                data,
                recipe,
                run_dir=killed,
                callbacks=[Kill(after_epoch=epoch)],
                progress=False,
            )
    resumed = train(fresh(build_open, 9), data, recipe, run_dir=killed, progress=False)
    assert numbers(resumed.history) == numbers(whole.history)
    wanted, found = state(tmp_path / "whole"), state(killed)
    assert wanted.keys() == found.keys()
    for name, value in wanted.items():
        assert value.tobytes() == found[name].tobytes(), name
    assert [row["size"] for row in whole.history] == [8] * (epochs // 2) + [12] * (epochs // 2)
    with (killed / "history.csv").open() as file:
        assert [row["stage"] for row in csv.DictReader(file)] == ["1"] * (epochs // 2) + ["2"] * (epochs // 2)
    assert resumed.model.input_shape == (None, 12, 12, 1)
    info = json.loads((killed / "model.json").read_text())
    assert Recipe.from_dict(info["recipe"]) == recipe


def test_a_run_that_began_before_a_field_was_added_goes_on(build, data, recipe, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(fresh(build), data, recipe, run_dir=tmp_path, callbacks=[Kill(after_epoch=1)], progress=False)
    file = tmp_path / "last.npz"
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    meta = json.loads(str(arrays["meta"]))
    for field in ("ema", "mixup", "clip_norm", "progressive", "model", "freeze"):
        del meta["identity"]["recipe"][field]
    np.savez(file, **(arrays | {"meta": np.asarray(json.dumps(meta))}))
    assert train(fresh(build), data, recipe, run_dir=tmp_path, progress=False).epochs == recipe.epochs


# ---------------------------------------------------------------- stages


TABLE_6 = {
    "S": (Progressive(4, (128, 300), (5, 15), (0, 0), (0, 0), (0.1, 0.3)), [128, 185, 243, 300]),
    "M": (Progressive(4, (128, 380), (5, 20), (0, 0.2), (0, 0.2), (0.1, 0.4)), [128, 212, 296, 380]),
    "L": (Progressive(4, (128, 380), (5, 25), (0, 0.5), (0, 0.5), (0.1, 0.5)), [128, 212, 296, 380]),
}


@pytest.mark.parametrize("variant", TABLE_6)
def test_stages_are_those_of_table_6(variant):
    progressive, sizes = TABLE_6[variant]
    stages = [progressive.at(epoch, 350) for epoch in range(350)]
    assert [stage.size for stage in {stage.number: stage for stage in stages}.values()] == sizes
    assert (stages[0].magnitude, stages[-1].magnitude) == progressive.magnitude
    assert (stages[0].mixup, stages[-1].mixup) == progressive.mixup
    assert (stages[0].dropout, stages[-1].dropout) == pytest.approx(progressive.dropout)
    assert stages[87].number == 0
    assert stages[88].number == 1
    assert progressive.stage(1).magnitude == pytest.approx(5 + (progressive.magnitude[1] - 5) / 3)
    assert str(sizes[2]) in progressive.table(350)
    assert len(progressive.table(350).splitlines()) == 5


def test_a_stage_trains_at_its_size_and_dropout(build_open, data):
    model = build_open()
    recipe = EVERYTHING.replace(freeze=None, freeze_epochs=None, freeze_batch_norm=False)
    first, last = phases(recipe)
    assert (first.first, first.end, last.end) == (0, 1, 2)
    dropout = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dropout))
    with entered(model, recipe, last, None):
        assert dropout.rate == pytest.approx(0.3)
    assert dropout.rate == pytest.approx(0.2)
    assert (first.augmentation.rand_magnitude, last.augmentation.rand_magnitude) == (2, 9)
    assert (first.mixing.mixup, last.mixing.cutmix) == (0.1, 1.0)
    images, *_ = next(iter(data.train(8, size=(8, 8))))
    assert images.shape == (8, 8, 8, 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"size": None}, r"`progressive` needs a model that takes images of any size: .*\(None, None, 1\)"),
        ({"dropout": 0}, r"sets the rate of the dropout .*which has none"),
    ],
)
def test_models_that_can_not_train_in_stages(build, build_open, data, tmp_path, change, text):
    model = build() if "size" in change else build_open(**change)
    recipe = EVERYTHING.replace(freeze=None, freeze_epochs=None)
    with pytest.raises(InvalidArgumentError, match=text):
        train(model, data, recipe, run_dir=tmp_path, progress=False)


# ---------------------------------------------------------------- freezing and rates by layer


def test_frozen_layers_stay_and_their_statistics_follow(build_open, data, tmp_path):
    model = fresh(build_open)
    before = {weight.path: np.array(weight) for weight in model.weights}
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=0.01, freeze="*")
    train(model, data, recipe, run_dir=tmp_path, progress=False)
    changed = {path for path, value in before.items() if not (np.array(_named(model, path)) == value).all()}
    assert changed == {path for path in before if path.startswith("classifier") or "moving" in path}
    assert all(weight.trainable for layer in model.layers for weight in layer.trainable_weights)


def _named(model, path):
    return next(weight for weight in model.weights if weight.path == path)


def test_frozen_batch_norms_keep_their_statistics_and_are_saved_as_they_were(build_open, data, tmp_path):
    model = fresh(build_open)
    before = {weight.path: np.array(weight) for weight in model.weights}
    recipe = Recipe(epochs=1, batch_size=16, learning_rate=0.01, freeze_batch_norm=True)
    result = train(model, data, recipe, run_dir=tmp_path, progress=False)
    for path, value in before.items():
        assert (np.array(_named(model, path)) == value).all() == ("_bn" in path), path
    loaded = keras.saving.load_model(result.run_dir / "best.keras")
    assert all(layer.trainable for layer in loaded.layers)
    assert all(layer.trainable for layer in model.layers)


def test_after_freezing_all_layers_train(build_open, data, tmp_path):
    stems = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: stems.append(np.array(model.get_layer("stem").kernel))
    )
    model = fresh(build_open)
    start = np.array(model.get_layer("stem").kernel)
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.01, freeze="stem*", freeze_epochs=2)
    train(model, data, recipe, run_dir=tmp_path, callbacks=[watch], progress=False)
    assert [bool((stem == start).all()) for stem in stems] == [True, True, False]


@pytest.mark.parametrize("pattern", ["nothing*", "[sc]*"])
def test_patterns_of_no_layers_or_of_all(build_open, data, tmp_path, pattern):
    with pytest.raises(InvalidArgumentError, match=r"`freeze` must be a pattern .* Received: .*stem, stem_bn, stage0"):
        train(build_open(), data, Recipe(epochs=1, freeze=pattern), run_dir=tmp_path, progress=False)


def test_rates_and_decay_fall_from_group_to_group(build_open):
    model = build_open(dropout=0)
    groups = layer_groups(model)
    names = {variable.path: groups[id(variable)] for variable in model.trainable_variables}
    assert names["stem/kernel"] == names["stem_bn/gamma"] == 0
    assert [names[f"stage0_block{n}_conv/kernel"] for n in (0, 1)] == [1, 2]
    assert names["classifier/kernel"] == names["classifier/bias"] == 3
    recipe = Recipe(epochs=1, warmup_epochs=0, learning_rate=0.01, weight_decay=0.0, layer_decay=0.5)
    optimizer = make_optimizer(model, recipe, 10)
    assert isinstance(optimizer, LayerwiseAdamW)
    before = [np.array(variable) for variable in model.trainable_variables]
    optimizer.build(model.trainable_variables)
    optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        wanted = 0.01 * 0.5 ** (3 - groups[id(variable)])
        np.testing.assert_allclose(value - np.array(variable), wanted, rtol=1e-3, err_msg=variable.path)

    decaying = make_optimizer(model, recipe.replace(weight_decay=0.1), 10)
    decaying.build(model.trainable_variables)
    before = [np.array(variable) for variable in model.trainable_variables]
    decaying.apply([tf.zeros(v.shape) for v in model.trainable_variables], model.trainable_variables)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        share = 0.01 * 0.1 * 0.5 ** (3 - groups[id(variable)]) if len(variable.shape) > 1 else 0.0
        np.testing.assert_allclose(np.array(variable), value * (1 - share), rtol=1e-6, atol=1e-9)


def test_groups_are_stem_12_of_blocks_and_head(monkeypatch):
    import keraslight

    model = keraslight.create_model("mobilenet_v2_035", classes=3, input_shape=(32, 32, 3), weights=None)
    groups = layer_groups(model)
    assert sorted(set(groups.values())) == list(range(14))
    assert groups.keys() == {id(variable) for variable in model.trainable_variables}
    plain = keras.Sequential([keras.Input((8,)), *(keras.layers.Dense(4, name=f"d{n}") for n in range(4))])
    assert [layer_groups(plain)[id(layer.kernel)] for layer in plain.layers] == [0, 1, 2, 3]


# ---------------------------------------------------------------- averages and steps


def test_the_average_has_statistics_too_and_exchanges_exactly(build_open):
    model = fresh(build_open)
    average = Average(model, 0.9)
    raw = [np.array(weight) for weight in model.weights]
    for weight in model.weights:
        weight.assign(weight + 1)
    average.update(3, model)  # (1 + 3) / (10 + 3)
    changed = [np.array(weight) for weight in model.weights]
    average.exchange()
    for weight, old, new in zip(model.weights, raw, changed, strict=True):
        np.testing.assert_allclose(weight, old + (new - old) * (1 - 4 / 13), rtol=1e-5, atol=1e-6)
    assert any("moving_variance" in weight.path for weight in model.weights)
    average.exchange()
    for weight, value in zip(model.weights, changed, strict=True):
        assert np.array(weight).tobytes() == value.tobytes()


def test_the_average_is_validated_and_kept(build_open, data, tmp_path):
    recipe = Recipe(epochs=3, batch_size=16, learning_rate=0.02, final_learning_rate=1.0, ema=0.9, seed=2)
    result = train(fresh(build_open), data, recipe, run_dir=tmp_path, progress=False)
    rates = [row["learning_rate"] for row in result.history]
    assert rates[-1] == pytest.approx(0.02)
    pixels, targets = data.validation_arrays()
    best = result.history[result.best_epoch - 1]
    assert np.mean(result.model.predict(pixels, verbose=0).argmax(-1) == targets) == pytest.approx(best["val_accuracy"])
    arrays = list(state(tmp_path).values())
    averages = arrays[-len(result.model.weights) :]
    assert any(value.shape and not (value == raw).all() for value, raw in zip(averages, arrays, strict=False))


def test_two_accumulated_batches_are_one_update_of_their_mean(build_open, data):
    model = fresh(build_open)
    recipe = Recipe(epochs=2, batch_size=8, accumulate=2, clip_norm=0.5)
    optimizer = make_optimizer(model, recipe, 10)
    optimizer.build(model.trainable_variables)
    before = [np.array(variable) for variable in model.trainable_variables]
    ones = [tf.ones(v.shape) for v in model.trainable_variables]
    optimizer.apply(ones, model.trainable_variables)
    assert all((np.array(v) == value).all() for v, value in zip(model.trainable_variables, before, strict=True))
    optimizer.apply(ones, model.trainable_variables)
    assert not any((np.array(v) == value).all() for v, value in zip(model.trainable_variables, before, strict=True))
    assert int(optimizer.iterations) == 1
    assert optimizer.global_clipnorm == 0.5


# ---------------------------------------------------------------- mixing


def test_shares_are_drawn_from_beta():
    images = tf.reshape(tf.range(2000.0), (-1, 1, 1, 1))
    for alpha in (0.2, 0.8):
        mixed, targets = Mixing(mixup=alpha)(images, tf.one_hot(tf.range(2000), 2000), (1, 2))
        assert targets.numpy().sum(1) == pytest.approx(1, abs=1e-5)
        lam = targets.numpy()[np.arange(2000), np.arange(2000)]
        assert stats.kstest(lam, stats.beta(alpha, alpha).cdf).pvalue > 0.01
        np.testing.assert_allclose(mixed.numpy().ravel(), targets.numpy() @ np.arange(2000), rtol=1e-3, atol=1e-2)


def test_boxes_have_the_area_that_the_target_says():
    images = tf.cast(tf.tile(tf.reshape(tf.range(500), (-1, 1, 1, 1)), (1, 20, 30, 1)), tf.float32)
    mixed, targets = Mixing(cutmix=1.0)(images, tf.one_hot(tf.range(500), 500), (1, 2))
    assert targets.numpy().sum(1) == pytest.approx(1, abs=1e-5)
    cut = mixed.numpy()[..., 0] != np.arange(500)[:, None, None]
    for own, (box, row) in enumerate(zip(cut, targets.numpy(), strict=True)):
        assert box.sum() == box.any(1).sum() * box.any(0).sum()
        assert 1 - row[own] == pytest.approx(box.mean(), abs=1e-5)
    inside = 1 - targets.numpy()[np.arange(500), np.arange(500)]
    assert 0.2 < inside.mean() < 0.5  # a half, less what the edges cut off


def test_half_of_the_mixed_images_get_each():
    images = tf.random.stateless_uniform((400, 8, 8, 1), (0, 1))
    rows = tf.one_hot(tf.range(400) % 4, 4)
    mixed, _ = Mixing(0.8, 1.0, probability=0.5)(images, rows, (1, 2))
    same = (mixed.numpy() == images.numpy()).mean((1, 2, 3))
    untouched, cut = (same == 1).mean(), ((same > 0) & (same < 1)).mean()
    assert 0.4 < untouched < 0.65
    assert 0.15 < cut < 0.35
    again, _ = Mixing(0.8, 1.0, probability=0.5)(images, rows, (1, 2))
    assert (again.numpy() == mixed.numpy()).all()


def test_mixed_targets_give_the_mixture_of_the_losses():
    outputs = tf.nn.softmax(tf.random.stateless_normal((6, 3), (0, 1)))
    loss = ClassificationLoss(0.1)
    first, second = tf.constant([0, 1, 2, 0, 1, 2]), tf.constant([1, 1, 0, 2, 0, 0])
    mixed = 0.3 * tf.one_hot(first, 3) + 0.7 * tf.one_hot(second, 3)
    wanted = 0.3 * loss(first, outputs) + 0.7 * loss(second, outputs)
    assert float(loss(mixed, outputs)) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("task", ["softmax", "binary", "multi-label"])
def test_every_task_trains_on_mixed_images(build_open, data, tmp_path, task):
    pixels, targets = data.pixels, data.targets
    outputs = "softmax" if task == "softmax" else "sigmoid"
    if task == "binary":
        given = ImageData.from_arrays(pixels, targets % 2, ["even", "odd"], SMALL)
    elif task == "multi-label":
        given = ImageData.from_arrays(pixels, np.eye(3)[targets], data.labels, SMALL)
    else:
        given = data
    model = fresh(build_open, classes=1 if task == "binary" else 3, outputs=outputs)
    recipe = Recipe(epochs=1, batch_size=16, mixup=0.5, cutmix=0.5)
    result = train(model, given, recipe, run_dir=tmp_path, progress=False)
    assert 0 < result.history[0]["accuracy"] <= 1
    assert 0 < result.history[0]["val_accuracy"] <= 1


def test_distillation_teaches_on_the_mixed_images(build_open, data, tmp_path):
    recipe = Recipe(epochs=1, batch_size=16, mixup=0.5, class_weights=(1.0, 2.0, 3.0))
    distillation = Distillation(fresh(build_open, 7))
    result = train(fresh(build_open), data, recipe, run_dir=tmp_path, distillation=distillation, progress=False)
    assert np.isfinite(result.history[0]["loss"])


# ---------------------------------------------------------------- weights of classes


def test_class_weights_reach_the_loss(data):
    weights = np.array([1.0, 2.0, 4.0], np.float32)
    _, targets, given = next(iter(data.train(16, class_weights=weights)))
    np.testing.assert_array_equal(given, weights[targets.numpy()])
    mixed = next(iter(data.train(16, class_weights=weights, mixing=Mixing(0.5))))
    np.testing.assert_allclose(mixed[2], mixed[1].numpy() @ weights, rtol=1e-5)
    heavy = dataclasses.replace(data, weights=np.where(data.targets == 1, 10.0, 1.0))
    _, targets, given = next(iter(heavy.train(16)))
    np.testing.assert_array_equal(given, np.where(targets == 1, 10.0, 1.0))
    _, targets, given = next(iter(heavy.train(16, class_weights=weights)))
    np.testing.assert_array_equal(given, np.array([1.0, 20.0, 4.0])[targets.numpy()])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"ema": 1.0}, r"`ema` must be in \[0, 1\) or None"),
        ({"clip_norm": 0}, r"`clip_norm` must be positive or None"),
        ({"accumulate": 0}, r"`accumulate` must be at least 1"),
        ({"layer_decay": 0}, r"`layer_decay` must be in \(0, 1\]"),
        ({"mixup": -1}, r"`mixup` must be at least 0"),
        ({"mix_probability": 2}, r"`mix_probability` must be in \[0, 1\]\. Received: mix_probability=2"),
        ({"class_weights": (1.0, 0.0)}, r"`class_weights` must be \"balanced\", positive numbers"),
        ({"class_weights": "equal"}, r"`class_weights` must be"),
        ({"freeze_epochs": 2}, r"`freeze_epochs` needs `freeze`"),
        ({"freeze_epochs": 0, "freeze": "a"}, r"`freeze_epochs` must be at least 1 or None"),
        ({"epochs": 3, "progressive": Progressive()}, r"`epochs` must be at least the number of progressive stages"),
    ],
)
def test_values_out_of_range(values, text):
    with pytest.raises(InvalidArgumentError, match=text):
        Recipe(**values)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"stages": 0}, "`stages` must be at least 1"),
        ({"size": (0, 3)}, "`size` must be two values"),
        ({"dropout": (0, 1)}, r"`dropout` must be two values, .* in \[0, 1\)"),
        ({"magnitude": (5,)}, "`magnitude` must be two values"),
    ],
)
def test_stages_out_of_range(values, text):
    with pytest.raises(InvalidArgumentError, match=text):
        Progressive(**values)


def test_weights_of_the_wrong_number_or_task(build_open, data, tmp_path):
    with pytest.raises(InvalidArgumentError, match="a weight for each of the 3 labels"):
        train(build_open(), data, Recipe(epochs=1, class_weights=(1.0, 2.0)), run_dir=tmp_path, progress=False)
    rows = ImageData.from_arrays(data.pixels, np.eye(3)[data.targets], data.labels, SMALL)
    with pytest.raises(InvalidArgumentError, match="`class_weights` needs one class for each image"):
        train(
            build_open(outputs="sigmoid"),
            rows,
            Recipe(epochs=1, class_weights="balanced"),
            run_dir=tmp_path,
            progress=False,
        )


def test_a_recipe_scales_to_another_batch_and_length():
    recipe = Recipe(epochs=300, batch_size=4096, learning_rate=4e-3, warmup_epochs=20, freeze="*", freeze_epochs=30)
    scaled = recipe.scaled(128)
    assert scaled.learning_rate == pytest.approx(4e-3 / 32)
    assert scaled.batch_size == 128
    assert scaled.warmup_epochs == 20
    short = recipe.shortened(30)
    assert (short.epochs, short.warmup_epochs, short.freeze_epochs) == (30, 2, 29)
    assert recipe.shortened(1).warmup == 0


def test_half_precision_trains_and_resumes(data, build_open, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        recipe = Recipe(epochs=2, batch_size=16, ema=0.9, clip_norm=1.0)
        with pytest.raises(KeyboardInterrupt):
            train(fresh(build_open), data, recipe, run_dir=tmp_path, callbacks=[Kill(after_epoch=1)], progress=False)
        assert train(fresh(build_open, 2), data, recipe, run_dir=tmp_path, progress=False).epochs == 2
    finally:
        keras.config.set_dtype_policy("float32")


def test_no_rate_is_found_for_a_loss_that_is_not_finite(data, build_open):
    model = build_open()
    model.get_layer("classifier").bias.assign([np.nan] * 3)
    with pytest.raises(TrainingError, match=r"finite with the lowest rate.*Received: another loss in the first step"):
        find_learning_rate(model, data, Recipe(batch_size=16), steps=10)


@pytest.mark.parametrize(
    ("preprocessing", "labels", "text"),
    [
        (SMALL.replace(size=(16, 16)), 3, r"images of `data.preprocessing`'s size, \(16, 16, 1\)"),
        (SMALL.replace(mean=(0.25,)), 3, "Received: mean="),
        (SMALL, 4, "one score for each of the 4 labels"),
    ],
)
def test_a_rate_is_searched_with_data_that_train_would_take(build_open, preprocessing, labels, text):
    pixels = np.zeros((16, *preprocessing.size, 1), np.uint8)
    other = ImageData.from_arrays(pixels, np.arange(16) % labels, list("abcd")[:labels], preprocessing)
    model = of_size(build_open(), (12, 12, 1))
    with pytest.raises(InvalidArgumentError, match=text):
        find_learning_rate(model, other, Recipe(batch_size=16), steps=10)


def test_a_rate_is_searched_with_the_weights_of_the_classes(data, build_open):
    def first_loss(weights):
        recipe = Recipe(batch_size=16, class_weights=weights)
        return find_learning_rate(fresh(build_open), data, recipe, steps=10, highest=1e-5).losses[0]

    assert first_loss((3.0, 3.0, 3.0)) == pytest.approx(3 * first_loss(None), rel=1e-4)
