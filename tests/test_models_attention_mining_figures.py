"""What the chapter's figures show."""

import numpy as np

from cxrlib.models.figures_attention_mining import scenes


def test_scenes_show_each_map_with_what_is_hidden_from_its_network():
    steps = np.array([[[1.0, 0.2, 0.6]], [[0.1, 1.0, 0.0]], [[0.0, 0.1, 1.0]]])
    titles, maps, hidden = zip(*scenes(steps), strict=True)
    assert titles == ("radiograph", "$f_0$", "$f_1$, $E_1$ dark", "$f_2$, $E_2$ dark", "union")
    assert maps[0] is None and hidden[0] is hidden[1] is hidden[4] is None
    assert all(np.array_equal(shown, step) for shown, step in zip(maps[1:4], steps, strict=True))
    assert hidden[2].tolist() == [[True, False, True]]  # E_1: what f_0 looked at
    assert hidden[3].tolist() == [[True, True, True]]
    assert maps[4].tolist() == [[1.0, 1.0, 1.0]]
