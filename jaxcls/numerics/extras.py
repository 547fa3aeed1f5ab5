"""Optional dependencies, named with the command that installs them."""

from importlib.util import find_spec


def require(module: str, *packages: str, extra: str) -> None:
    """Check that the packages are installed.

    Args:
      module: what needs them.
      packages: as they are imported.
      extra: the extra of jaxcls that installs them.

    Raises:
      ModuleNotFoundError: one is not; the error says what to install.

    Example:
      >>> require("this", "no_such_package", extra="sweep")
      Traceback (most recent call last):
      ...
      ModuleNotFoundError: this needs no_such_package: pip install "jaxcls[sweep]"
    """
    for package in packages:
        if find_spec(package) is None:
            raise ModuleNotFoundError(f'{module} needs {package}: pip install "jaxcls[{extra}]"', name=package)
