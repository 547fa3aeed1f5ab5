"""Let Optuna propose 64 points at a time: one program trains them, and all their scores are told.

pip install "jaxcls[sweep]" optuna
python examples/optuna_search.py
"""

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution

from jaxcls import data, sweep
from jaxcls.classifier import two_layer_net
from jaxcls.grid import Points

SPACE = {
    "lr": FloatDistribution(1e-3, 3.0, log=True),
    "reg": FloatDistribution(1e-6, 1e-1, log=True),
    "momentum": FloatDistribution(0.5, 0.95),
    "hidden": CategoricalDistribution([8, 16, 32, 64]),  # the same sizes each round, so that one program serves all
}


def main(rounds: int = 4, points: int = 64, steps: int = 300) -> None:
    """Ask for points, train them, tell their scores; print the best so far after each round."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    splits = data.standard(data.load_digits())
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    for number in range(rounds):
        trials = [study.ask(SPACE) for _ in range(points)]
        cells = Points(**{name: [trial.params[name] for trial in trials] for name in SPACE})
        result = sweep.run(splits, cells, steps=steps, classifier=two_layer_net(), optimizer="momentum")
        for trial, row in zip(trials, result.table, strict=True):
            failed = optuna.trial.TrialState.FAIL if row["diverged_at"] >= 0 else None
            study.tell(trial, None if failed else row["val_accuracy"], failed)
        best = ", ".join(f"{name} {value:.3g}" for name, value in study.best_params.items())
        print(f"round {number + 1}: {study.best_value:.4f} on val at {best}; {result.timings.total_s:.1f} s")


if __name__ == "__main__":
    main()
