"""The files of a command as one source: given splits, those held out of train, folds and few shots."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxcls import data
from jaxcls.cli import console
from jaxcls.data import Source, Splits

HELD_OUT = 0.15  # of the examples, for each of val and test, where no file is given


class Files(NamedTuple):
    """Paths of features, and of labels where these are in files of their own; a test set or several.

    Attributes:
      train, val, test: the features.
      labels: of train, val and each test set; None where they lie with the features.
      names: of features and labels in the files.
      flag: that of train.
    """

    train: Path
    val: Path | None
    test: Sequence[Path]
    labels: Mapping[Path, Path | None]
    names: tuple[str, str]
    flag: str = "--train"

    @property
    def paths(self) -> list[Path]:
        """Of the features, train first."""
        return [self.train, *([self.val] if self.val else []), *self.test]


class Input(NamedTuple):
    """The contents of the files: one source, and the rows of each test set by its file's name."""

    source: Source
    tests: dict[str, NDArray[np.integer]]


def named(
    train: Path,
    val: Path | None,
    test: Sequence[Path],
    labels: tuple[Path | None, Path | None, Sequence[Path]],
    *,
    names: tuple[str, str],
    flag: str = "--train",
) -> Files:
    """The files of these flags; the labels are those of train, val and each test set.

    Raises:
      ValueError: labels come without features, or two files are the same.

    Example:
      >>> named(Path("a.npz"), None, [], (None, Path("labels.txt"), []), names=data.NAMES)
      Traceback (most recent call last):
      ValueError: --val-labels are those of --val: give that, too
    """
    of_train, of_val, of_test = labels
    for role, path, given in (("val", val, of_val), ("test", test, of_test)):
        if given and not path:
            raise ValueError(f"--{role}-labels are those of --{role}: give that, too")
    if of_test and len(of_test) != len(test):
        raise ValueError(f"--test-labels must be those of the {len(test)} of --test, got {len(of_test)}")
    of_path = {train: of_train} | ({val: of_val} if val else {}) | dict(zip(test, of_test, strict=False))
    found = Files(train=train, val=val, test=test, labels=of_path, names=names, flag=flag)
    if len({path.resolve() for path in found.paths}) < len(found.paths):
        raise ValueError(f"{flag}, --val and --test must be different files")
    return found


def read(files: Files, *, hold_out: float = HELD_OUT, folds: int = 0, seed: int = 0) -> Input:
    """Open the files; splits without one are held out of train, class by class.

    Args:
      files: the files.
      hold_out: the share of train that is held out for val.
      folds: how many folds choose instead of val; 0 for none.
      seed: draws what is held out.

    Raises:
      ValueError: the files do not fit together.
    """
    open_one = functools.partial(data.load, names=files.names, roles=())
    first = open_one(files.train, files.labels.get(files.train))
    given = {files.train: first}
    for path in files.paths[1:]:  # the features of a .csv are those of train, by name
        given[path] = open_one(path, files.labels.get(path), columns=first.feature_names)
    for path, source in given.items():
        if (width := source.X.shape[1]) != first.X.shape[1]:
            raise ValueError(f"{path} must have the {first.X.shape[1]} features of {files.train}, got {width}")
        if len(source.val) and len(given) > 1:
            raise ValueError(f"{path} is split by itself: give it alone, as {files.flag}")
        if source.note:
            console.note(source.note)
    if len(first.val):
        if hold_out != HELD_OUT:
            raise ValueError(f"{files.train} is split by itself: leave out --hold-out")
        found = Input(first, {})
    else:
        found = _held_out(files, given, hold_out=hold_out, choose_by_folds=folds > 0, seed=seed)
    return found._replace(source=_for_folds(found.source, folds)) if folds else found


def _held_out(
    files: Files, given: Mapping[Path, Source], *, hold_out: float, choose_by_folds: bool, seed: int
) -> Input:
    """These files as one source."""
    train = given[files.train]
    number = {name: k for k, name in enumerate(train.class_names)}
    for path, source in given.items():
        if others := [name for name in source.class_names if name not in number]:
            raise ValueError(f"{path} has classes that {files.train} has not: {', '.join(others)}")
    y = np.concatenate([np.array([number[name] for name in each.class_names])[each.y] for each in given.values()])
    ends = np.cumsum([len(source.y) for source in given.values()])
    of_path = dict(zip(given, np.split(np.arange(len(y)), ends[:-1]), strict=True))
    rows = {"train": of_path[files.train]}
    if files.val:
        rows["val"] = of_path[files.val]
    if files.test:
        rows["test"] = of_path[files.test[0]]
    missing = [role for role in ("val", "test") if role not in rows and (role == "test" or not choose_by_folds)]
    together = [missing] if hold_out == HELD_OUT else [[role] for role in reversed(missing)]
    for roles in together:  # val last, as a share of what is then left of train
        left, fraction = rows["train"], hold_out if roles == ["val"] else HELD_OUT
        held, by_class = data.hold_out(train.y[left], roles, fraction=fraction, seed=seed)
        if roles and not by_class:
            console.note(f"{files.train}: too few examples of each class, so {' and '.join(roles)} ignore the classes")
        rows |= {role: np.sort(left[each]) for role, each in held.items()}
    rows.setdefault("val", rows["train"])  # folds choose by train alone
    X = train.X if len(given) == 1 else data.Rows([each.X for each in given.values()], [str(path) for path in given])
    source = replace(train, X=X, y=y, train=rows["train"], val=rows["val"], test=rows["test"])
    return Input(source, {str(path): of_path[path] for path in files.test})


def _for_folds(source: Source, folds: int) -> Source:
    """The source with train and val as one, which this many folds are made of, class by class."""
    rows = np.union1d(source.train, source.val)
    counts = np.unique_counts(source.y[rows]).counts
    if (most := counts.max()) < folds:
        raise ValueError(f"--folds must be at most {most}, the examples of the largest class, got {folds}")
    if (fewest := counts.min()) < folds:
        console.note(f"a class has {fewest} examples, so some of the folds have none of it")
    return replace(source, train=rows, val=rows)


def shots(splits: Splits, count: int, tries: int, *, seed: int) -> list[NDArray[np.integer]]:
    """Random subsets of train, each with as many examples of every class.

    Raises:
      ValueError: a class has fewer.

    Example:
      >>> [few.shape for few in shots(data.standard(data.load_digits()), 4, 2, seed=0)]
      [(40,), (40,)]
    """
    of_class = [np.flatnonzero(splits.train.y == k) for k in range(splits.num_classes)]
    for name, rows in zip(splits.class_names, of_class, strict=True):
        if len(rows) < count:
            raise ValueError(
                f"--shots must be at most the examples of each class, {len(rows)} of class {name}, got {count}"
            )
    found = []
    for number in range(tries):
        random = np.random.default_rng([seed, number])
        drawn = np.concatenate([random.choice(rows, count, replace=False) for rows in of_class])
        found.append(np.sort(drawn))
    return found
