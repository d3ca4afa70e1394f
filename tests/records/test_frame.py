from __future__ import annotations

import math

from domainbed.records.frame import to_frame


def test_one_row_a_record_with_flat_columns():
    records = [
        {"args": {"test_envs": [1], "seed": 3}, "hparams": {"lr": 0.1}, "step": 0, "loss": 2.0},
        {"args": {"test_envs": [2], "seed": 3}, "hparams": {"lr": 0.1}, "step": 1, "sizes": {"env0_in": 9}},
    ]
    frame = to_frame(records)
    assert set(frame) == {"args.test_envs", "args.seed", "hparams.lr", "step", "loss", "sizes.env0_in"}
    assert list(frame["args.test_envs"]) == [[1], [2]]
    assert list(frame["step"]) == [0, 1]
    assert math.isnan(frame["loss"][1])
    assert frame["sizes.env0_in"][1] == 9
    assert to_frame([]).empty
