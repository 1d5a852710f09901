"""What the charts say on their axes; how they look is for eyes."""

import matplotlib.pyplot as plt
import pandas as pd

from cxrlib import figures, runs, studies
from cxrlib.models import figures as model_figures


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


def test_arms_stand_beside_their_controls_where_they_localize():
    study = runs.committed("pylon_variants.csv")
    rows = {
        "AUROC": ("auroc", ["mean"], "classification"),
        "pointing": ("pointing", ["macro"], "localization"),
    }
    names = {"pylon": "PYLON", "cam_mean": "CAM"}
    figure = model_figures.arms(study, "variant", rows, names)
    labels = [axis.get_legend_handles_labels()[1] for axis in figure.axes]
    assert labels == [[], ["location prior", "grid ceiling"]]
    ceiling = studies.by_seed(study, "variant", "pointing", part="grid_ceiling").mean()
    assert figure.axes[1].lines[-1].get_xdata().tolist() == ceiling[list(names)].tolist()
    plt.close(figure)
