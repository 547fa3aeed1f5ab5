"""Published protocols of linear probes, each as the flags of ``jaxcls probe`` that it sets."""

from typing import Any, Literal

import numpy as np

Name = Literal[
    "standard",
    "dinov2-linear",
    "dinov3-linear",
    "dinov2-logreg",
    "clip",
    "clip-benchmark",
    "ssl-transfer",
    "mteb",
    "capi",
    "big-vision-fewshot",
]

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)
TO_THE_OPTIMUM = {"features": "raw", "float64": True, "refit": True}
DINOV2_LINEAR = {
    "features": "raw",
    "solver": "momentum",
    "lr": (*RATES, 2e-2, 5e-2, 0.1),
    "base_batch": 256,
    "reg": (0.0,),
    "init_scale": 0.01,
    "schedule": "cosine",
    "steps": 12_500,
    "batch_size": 1024,
    "sampling": "epochs",
}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "standard": {},
    # dinov2/eval/linear.py of Oquab et al., DINOv2, 2023; the batch size is that of 8 GPUs.
    "dinov2-linear": DINOV2_LINEAR,
    # dinov3/eval/linear.py of Simeoni et al., DINOv3, 2025.
    "dinov3-linear": DINOV2_LINEAR | {"keep": "best"},
    # dinov2/eval/log_regression.py of the same.
    "dinov2-logreg": TO_THE_OPTIMUM | {"C": tuple((10 ** np.linspace(-6, 5, 45)).tolist()), "hold_out": 0.1},
    # Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, appendix A.3.
    "clip": TO_THE_OPTIMUM | {"C": tuple(np.logspace(-6, 6, 96).tolist())},
    # clip_benchmark/metrics/linear_probe.py of LAION's CLIP_benchmark.
    "clip-benchmark": {
        "features": "l2",
        "solver": "adamw",
        "lr": (0.1,),
        "weight_decay": tuple(np.logspace(-6, 2, 97).tolist()),
        "init": "uniform",
        "schedule": "cosine",
        "epochs": 10,
        "batch_size": 512,
        "sampling": "epochs",
        "last_batch": "kept",
        "refit": True,
    },
    # linear.py of Ericsson, Gouk and Hospedales, How Well Do Self-Supervised Models Transfer?, 2021; C is 1 / wd.
    "ssl-transfer": TO_THE_OPTIMUM | {"C": tuple((1 / np.logspace(-6, 5, 45)).tolist()), "hold_out": 0.2},
    # mteb/abstasks/classification.py of Muennighoff et al., MTEB, 2023.
    "mteb": {"features": "raw", "C": (1.0,), "shots": 8, "tries": 10},
    # eval_classification.py of Darcet et al., CAPI, 2025.
    "capi": {
        "features": "raw",
        "solver": "adamw",
        "lr": RATES,
        "base_batch": 256,
        "weight_decay": (5e-4, 1e-3, 5e-2),
        "decay_bias": False,
        "b2": (0.95,),
        "init_scale": 0.02,
        "schedule": "cosine",
        "warmup": 1250,
        "steps": 12_500,
        "batch_size": 128,
        "sampling": "epochs",
        "hold_out": 0.1,
    },
    # big_vision/evaluators/fewshot_lsr.py of Google Research, with its l2 of 1024, which is 1 / (2 C).
    "big-vision-fewshot": {"solver": "ridge", "C": (1 / 2048,), "shots": 10, "tries": 3},
}
