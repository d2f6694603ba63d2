"""The pixels of PIL images. Apart from arrays, as it doesn't need numpy."""

from PIL import Image, ImageOps


def decoded(image: Image.Image) -> Image.Image:
    """An image of mode "1", "L", "RGB" or "RGBA", upright, with the pixels that servables decode from its file."""
    is_gif = image.format == "GIF"
    image = ImageOps.exif_transpose(image)
    if image.mode == "I;16":
        return image.point(lambda value: value / 256).convert("L")  # its mode stays "I;16" until then
    if image.mode in ("1", "L", "RGB", "RGBA"):
        return image
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if is_gif and image.mode == "RGBA":  # TensorFlow paints transparent pixels of GIF files black
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image
