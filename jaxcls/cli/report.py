"""``jaxcls report``: the page of a finished run, written again from its folder."""

from pathlib import Path

import tyro

from jaxcls.artifacts import report


def main(args: list[str], program: str) -> int:
    """Read the command line and write the page; the exit code."""

    def write(run: tyro.conf.Positional[Path]) -> int:
        """Write report.html from what a finished run left in its folder.

        Args:
          run: The run's folder.
        """
        print(f"wrote     {report.write(run)}")
        return 0

    return tyro.cli(write, args=args, prog=program)
