"""Recipes of the papers and of their authors' code, for ImageNet, each with the batch size that its rate belongs to.

Keras decays weights apart from the gradient, relative to the rate, so that a paper's L2 term with RMSProp is another
number: where only such a recipe is published, it is adapted to AdamW, and its source says so.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from keraslight.training._augmentation import Augmentation
from keraslight.training._progressive import Progressive
from keraslight.training._recipe import Recipe

_LIGHT = Augmentation(crop=(0.5, 1.0), flip=True, brightness=0.1, contrast=0.2)
_GARDEN = "TensorFlow Model Garden, official/vision/configs/experiments/image_classification/imagenet_"
_CONVNEXT = "Liu et al., https://arxiv.org/abs/2201.03545, appendix A.1, and facebookresearch/ConvNeXt, "
_V2 = "Tan and Le, https://arxiv.org/abs/2104.00298, section 5.1 and table 6; AdamW in place of RMSProp, rate "


def _photos(layers: int, magnitude: float, probability: float = 1.0, **more: Any) -> Augmentation:
    """Random crops and mirror images, as all of them have, and RandAugment."""
    return Augmentation(
        crop=(0.08, 1.0),
        flip=True,
        rand_layers=layers,
        rand_magnitude=magnitude,
        rand_probability=probability,
        **more,
    )


def _garden(file: str, **fields: Any) -> Recipe:
    return Recipe(source=f"{_GARDEN}{file}_tpu.yaml", **fields)


def _convnext(drop_path: float) -> Recipe:
    return Recipe(
        epochs=300,
        batch_size=4096,
        learning_rate=4e-3,
        final_learning_rate=2.5e-4,
        warmup_epochs=20,
        weight_decay=0.05,
        epsilon=1e-8,
        ema=0.9999,
        mixup=0.8,
        cutmix=1.0,
        augmentation=_photos(2, 9, 0.5, rand_std=0.5, erase=0.25),
        model={"drop_path": drop_path},
        source=f"{_CONVNEXT}README.md and main.py",
    )


def _efficientnet_v2(size: int, magnitude: float, mixup: float, dropout: float) -> Recipe:
    return Recipe(
        epochs=350,
        batch_size=4096,
        learning_rate=4e-3,
        warmup_epochs=5,
        weight_decay=0.05,
        ema=0.9999,
        augmentation=_photos(2, magnitude),
        progressive=Progressive(4, (128, size), (5, magnitude), (0, mixup), (0, mixup), (0.1, dropout)),
        model={"dropout": dropout, "drop_path": 0.2},
        source=f"{_V2}and decay as ConvNeXt's",
    )


_RECIPES = {
    # With 4096 images per batch, an epoch has 312 steps, and with 16384 it has 78: all warm-ups take 1,560 steps.
    "mobilenet_v4_conv_small": _garden(
        "mobilenetv4_conv_small",
        epochs=9623,
        batch_size=4096,
        learning_rate=2e-3,
        warmup_epochs=5,
        weight_decay=0.01,
        beta_1=0.6,
        epsilon=1e-6,
        ema=0.9999,
        augmentation=_photos(2, 9, 0.5),
        model={"dropout": 0.3},
    ),
    "mobilenet_v4_conv_medium": _garden(
        "mobilenetv4_conv_medium",
        epochs=500,
        batch_size=4096,
        learning_rate=4e-3,
        warmup_epochs=5,
        weight_decay=0.1,
        augmentation=_photos(2, 15, 0.7),
        model={"dropout": 0.2, "drop_path": 0.075},
    ),
    "mobilenet_v4_conv_large": _garden(
        "mobilenetv4_conv_large",
        epochs=500,
        batch_size=16384,
        learning_rate=4e-3,
        warmup_epochs=20,
        weight_decay=0.2,
        mixup=0.8,
        cutmix=1.0,
        mix_probability=0.2,
        augmentation=_photos(2, 15),
        model={"dropout": 0.2, "drop_path": 0.2},
    ),
    "mobilenet_v4_hybrid_medium": _garden(
        "mobilenetv4_hybrid_medium",
        epochs=500,
        batch_size=16384,
        learning_rate=0.016,
        warmup_epochs=20,
        weight_decay=0.1,
        augmentation=_photos(2, 15, 0.7),
        model={"dropout": 0.2, "drop_path": 0.075},
    ),
    "mobilenet_v4_hybrid_large": _garden(
        "mobilenetv4_hybrid_large",
        epochs=500,
        batch_size=16384,
        learning_rate=0.01,
        final_learning_rate=0.001,
        warmup_epochs=20,
        weight_decay=0.2,
        mixup=0.8,
        cutmix=1.0,
        mix_probability=0.3,
        augmentation=_photos(2, 15),
        model={"dropout": 0.2, "drop_path": 0.35},
    ),
    "mobilenet_v3_large": Recipe(
        epochs=700,
        batch_size=4096,
        learning_rate=4e-3,
        warmup_epochs=5,
        weight_decay=0.1,
        augmentation=_photos(2, 9, 0.5, rand_std=0.5),
        model={"dropout": 0.2},
        source=f"{_GARDEN}mobilenetv3large_tpu.yaml; RandAugment as timm's in place of AutoAugment, and a warm-up",
    ),
    "mobilenet_v3_small": Recipe(
        epochs=1000,
        batch_size=4096,
        learning_rate=4e-3,
        warmup_epochs=5,
        weight_decay=0.1,
        ema=0.9999,
        augmentation=Augmentation(crop=(0.08, 1.0), flip=True),
        model={"dropout": 0.2},
        source=f"{_GARDEN}mobilenetv3small_tpu.yaml; AdamW with mobilenet_v3_large's rate and decay, not RMSProp",
    ),
    "convnext_tiny": _convnext(0.1),
    "convnext_small": _convnext(0.4),
    "convnext_base": _convnext(0.5),
    "convnext_large": _convnext(0.5),
    "convnext_finetune": Recipe(
        epochs=30,
        batch_size=512,
        learning_rate=5e-5,
        final_learning_rate=0.02,
        warmup_epochs=0,
        weight_decay=1e-8,
        epsilon=1e-8,
        layer_decay=0.7,
        ema=0.9999,
        augmentation=_photos(2, 9, 0.5, rand_std=0.5, erase=0.25),
        source=f"{_CONVNEXT}TRAINING.md, fine-tuning",
    ),
    "efficientnet_v2_s": _efficientnet_v2(300, 15, 0.0, 0.3),
    "efficientnet_v2_m": _efficientnet_v2(380, 20, 0.2, 0.4),
    # 0.5 in the authors' code and in basecls; a transcription of the table prints 0.4.
    "efficientnet_v2_l": _efficientnet_v2(380, 25, 0.5, 0.5),
    "finetune": Recipe(
        epochs=20,
        batch_size=32,
        learning_rate=1e-3,
        warmup_epochs=1,
        weight_decay=0.05,
        layer_decay=0.9,
        augmentation=_LIGHT,
        source="This package: all layers train, the lower ones more slowly; for pretrained weights and few photographs",
    ),
    "photos": Recipe(
        epochs=30,
        batch_size=32,
        learning_rate=1e-3,
        augmentation=dataclasses.replace(_LIGHT, saturation=0.2),
        source="This package: what `keraslight train` does with a folder unless told otherwise",
    ),
    "head_first": Recipe(
        epochs=20,
        batch_size=32,
        learning_rate=1e-3,
        warmup_epochs=1,
        weight_decay=0.05,
        layer_decay=0.9,
        freeze="*",
        freeze_epochs=3,
        patience=8,
        augmentation=_LIGHT,
        source="This package: `finetune` that begins with the head and stops early; what `keraslight make` does",
    ),
    "few_photos": Recipe(
        epochs=40,
        batch_size=16,
        learning_rate=3e-3,
        patience=20,
        augmentation=dataclasses.replace(_LIGHT, saturation=0.2),
        source="This package: for hundreds of photographs without pretrained weights; what `keraslight make` does then",
    ),
}

RECIPES: Mapping[str, Recipe] = MappingProxyType(_RECIPES)
"""Recipes by name: of the papers, for ImageNet, and `finetune`, `head_first`, `photos` and `few_photos` for smaller
data. `source` says where each is from. Pass `model` to `create_model`, and adapt the rate with `scaled(batch_size)`."""
