"""Training with auxiliary classifiers, whose losses help the layers below them."""

from typing import Any

import keras

from keraslight.graph import keeping_modes, without_auxiliary


class AuxiliaryTraining(keras.Model):
    """A model without its auxiliary heads, which trains with them: their losses are added to its own, with a weight.

    Metrics, validation and its loss are those of the model without them.

    Source: Szegedy et al., "Going deeper with convolutions", https://arxiv.org/abs/1409.4842, section 5.
    """

    RUNS_ITS_GRAPH = True
    _whole: keras.Model
    _weight = 0.0
    _others: tuple[Any, ...] = ()

    @classmethod
    def of(cls, model: keras.Model, weight: float) -> keras.Model:
        """The model to train in place of one with auxiliary heads; it has the same layers."""
        deployed = without_auxiliary(model)
        made = cls(deployed.input, deployed.output, name=model.name)
        made._whole, made._weight = keeping_modes(model), weight
        return made

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training:
            return super().call(inputs, training=training, mask=mask)
        outputs = dict(self._whole(inputs, training=True))
        main = outputs.pop("classifier")
        self._others = tuple(outputs.values())  # for the loss of the same step
        return main

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        others, self._others = self._others, ()
        if not training:
            return loss
        return loss + self._weight * sum(self.loss(y, other, sample_weight) for other in others)
