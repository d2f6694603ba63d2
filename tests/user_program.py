"""A user's program, for the type checker: what it must accept, and in `wrong`, what it must report."""

from __future__ import annotations

import keras
from keraslight_serving.client import Classification, ClassifierClient, Retry
from keraslight_serving.server import ModelServer

import keraslight
from keraslight import analysis, compress
from keraslight.architectures import ResNet
from keraslight.blocks.conv import TENSORFLOW
from keraslight.export import save_servable, to_litert
from keraslight.training import DIGITS_PREPROCESSING, DIGITS_RECIPE, load_digits, train


def right() -> None:
    data = load_digits(DIGITS_PREPROCESSING)
    model: keras.Model = keraslight.MobileNetV4(
        "conv_small", classes=10, input_shape=data.image_shape, preprocessing=data.preprocessing
    )
    keraslight.MobileNetV3("small_050", weights="imagenet", name="mine", dropout=0.1)
    keraslight.MobileNetV2(style=TENSORFLOW, width=0.5, include_top=False, pooling="avg")
    ResNet("18", classes=3)
    info: keraslight.ModelInfo = keraslight.model_info(keraslight.list_models("mobilenet*")[0])
    print(info.parameters + 1, info.preprocessing)
    other = keraslight.create_model("resnet18", weights=None, preprocessing=True)
    result = train(model, data, DIGITS_RECIPE.replace(epochs=2), run_dir="runs/program")
    print(result.best_accuracy + 1.0)
    pruned = compress.prune(model, data.train(32), sparsity=0.7, epochs=1)
    quantized = compress.train_quantized(pruned, data.train(32), epochs=1)
    print(compress.quantization_report(quantized), analysis.profile(other).macs + 1)
    analysis.plot_architecture(model).savefig("figure.png")
    to_litert(quantized, "digits.tflite", quantization="int8")
    save_servable(model, "savedmodels/program", labels=data.labels)
    with (
        ModelServer("program", "savedmodels/program", port=0) as server,
        ClassifierClient(server.address, model="program", retry=Retry(attempts=2)) as client,
    ):
        first: Classification = client.classify("digit.png")[0][0]
        print(first.label.upper(), first.score + 1.0)


def wrong() -> None:
    keraslight.MobileNetV4("conv_small", clases=10)  # type: ignore[call-arg] # misspelled
    keraslight.MobilNetV4("conv_small")  # type: ignore[attr-defined] # misspelled
    keraslight.MobileNetV4("conv_small", classes="ten")  # type: ignore[arg-type] # a number
    keraslight.ResNet(stems=3)  # type: ignore[call-arg] # another family's
    ResNet("18", weights="imagenet")  # type: ignore[call-arg] # `keraslight.ResNet` has weights
    keraslight.create_model(5)  # type: ignore[arg-type] # a name
    keraslight.model_info("resnet18").parameter  # type: ignore[attr-defined] # noqa: B018 # parameters
    keraslight.list_model()  # type: ignore[attr-defined] # list_models
