"""What the charts say on their axes; how they look is for eyes."""

import matplotlib.pyplot as plt
import pandas as pd

from cxrlib import figures


def test_training_curves_name_both_axes_and_the_kept_epoch():
    history = pd.DataFrame(
        {"epoch": [1, 2, 3], "loss": [3, 2, 1], "val_loss": [3, 1, 2], "r": [6, 7, 8]}
    )
    figure = figures.training_curves(history, "r", "sharpness")
    left, right = figure.axes
    assert right.get_ylabel() == "sharpness" and right.lines[0].get_ydata().tolist() == [6, 7, 8]
    training, validation, kept = left.lines
    assert (training.get_label(), validation.get_label()) == ("training", "validation")
    assert set(kept.get_xdata()) == {2}
    plt.close(figure)
