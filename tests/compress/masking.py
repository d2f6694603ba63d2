"""What a model computes with some channels at zero, found from the weights of its shrunk copy alone."""

from collections.abc import Iterable

import keras
import numpy as np

from keraslight.compress import channel_groups, shrink


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Gives every weight values of its own, of about the size that keeps signals as large as they are."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name, shape = weight.path.rpartition("/")[2], tuple(weight.shape)
        if not np.issubdtype(np.dtype(keras.backend.standardize_dtype(weight.dtype)), np.floating):
            continue
        if "kernel" in name:
            inputs = np.prod(shape[:-2]) if "depthwise" in name else np.prod(shape[:-1])
            values = rng.normal(size=shape) * inputs**-0.5
        else:  # no two are the same: of 2,000 random ones in float32, some are
            low, high = (0.5, 1.5) if "variance" in name or name == "gamma" else (-0.2, 0.2)
            values = rng.permutation(np.linspace(low, high, int(np.prod(shape)))).reshape(shape)
        weight.assign(values)


def kept_places(small: np.ndarray, large: np.ndarray) -> list[np.ndarray]:
    """For each axis, which places of `large` are in `small`: its values are all different."""
    where = {value: place for place, value in enumerate(large.reshape(-1).tolist())}
    found = []
    for axis, side in enumerate(small.shape):
        lines = np.moveaxis(small, axis, 0).reshape(side, -1)[:, :9]  # few equal values outvote no nine others
        places = [[np.unravel_index(where[value], large.shape)[axis] for value in line] for line in lines.tolist()]
        found.append(np.array([np.bincount(line).argmax() for line in places]))
    np.testing.assert_array_equal(large[np.ix_(*found)], small)
    return found


def mask(model: keras.Model, small: keras.Model) -> int:
    """Zeroes all weights of a model that its shrunk copy doesn't have; returns the number of weights with zeros.

    Batch norms keep their statistics: with a gamma and a beta of 0 they give 0 anyway.
    """
    theirs = {layer.name: layer for layer in small.layers}
    changed = 0
    for layer in all_layers(model):
        if not layer.weights:
            continue
        weights = layer.get_weights()
        for place, (ours, kept) in enumerate(zip(weights, theirs[layer.name].get_weights(), strict=True)):
            if ours.shape != kept.shape and not layer.weights[place].name.startswith("moving_"):
                places = np.ix_(*kept_places(kept, ours))
                weights[place] = np.zeros_like(ours)
                weights[place][places] = ours[places]
                changed += 1
        layer.set_weights(weights)
    return changed


def all_layers(model: keras.Model) -> Iterable[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)
        else:
            yield layer


def images_for(model: keras.Model, count: int = 4, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [tuple(side or 8 for side in tensor.shape[1:]) for tensor in model.inputs]
    return [rng.normal(size=(count, *shape)).astype("float32") for shape in shapes]


def outputs(model: keras.Model, images: list[np.ndarray]) -> list[np.ndarray]:
    given = images if len(images) > 1 else images[0]
    if len(images) > 1 and isinstance(model.input, dict):
        given = dict(zip(model.input, images, strict=True))
    return [np.asarray(each, np.float64) for each in keras.tree.flatten(model(given, training=False))]


def random_keep(model: keras.Model, share: float = 0.25, seed: int = 0) -> dict[str, np.ndarray]:
    """Places to keep of each removable group, all but a share of them."""
    rng = np.random.default_rng(seed)
    return {
        group.name: rng.choice(group.size, max(group.size - int(np.ceil(share * group.size)), 1), replace=False)
        for group in channel_groups(model)
        if group.removable
    }


def distance(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest difference, in standard deviations of the first ones' outputs."""
    return max(float(np.abs(a - b).max() / a.std()) for a, b in zip(ours, theirs, strict=True))


def shrunk_and_distance(model: keras.Model, share: float = 0.25, seed: int = 0) -> tuple[keras.Model, float]:
    """A model without a random share of each group's channels, and how far it is from `model`, which is masked."""
    randomize(model, seed)
    images = images_for(model)
    before = outputs(model, images)
    small = shrink(model, keep=random_keep(model, share, seed))
    assert mask(model, small)
    masked = outputs(model, images)
    assert distance(masked, before) > 1e-3  # the channels matter
    return small, distance(masked, outputs(small, images))
