"""A figure that notebooks show. Imported on first use, as it needs matplotlib."""

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure made without pyplot, with the picture that IPython looks for.

    IPython itself shows figures only after `%matplotlib inline`.
    """

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=100)
        return content.getvalue()
