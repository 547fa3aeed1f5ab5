"""Published protocols of linear probes, each as the flags of ``jaxcls probe`` that it sets."""

from typing import Any, Literal

import numpy as np

Name = Literal["standard", "clip", "dinov2-logreg", "ssl-transfer"]

TO_THE_OPTIMUM = {"features": "raw", "float64": True, "refit": True}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "standard": {},
    # Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, appendix A.3.
    "clip": TO_THE_OPTIMUM | {"C": tuple(np.logspace(-6, 6, 96).tolist())},
    # dinov2/eval/log_regression.py of Oquab et al., DINOv2, 2023.
    "dinov2-logreg": TO_THE_OPTIMUM | {"C": tuple((10 ** np.linspace(-6, 5, 45)).tolist()), "hold_out": 0.1},
    # linear.py of Ericsson, Gouk and Hospedales, How Well Do Self-Supervised Models Transfer?, 2021; C is 1 / wd.
    "ssl-transfer": TO_THE_OPTIMUM | {"C": tuple((1 / np.logspace(-6, 5, 45)).tolist()), "hold_out": 0.2},
}
