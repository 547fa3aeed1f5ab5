"""Kill a sweep again and again, resume it each time, and compare with an uninterrupted run.

python -m parity_tests.campaigns.kills               # 30 kills of each of three sweeps
python -m parity_tests.campaigns.kills --kills 3

Half of the kills come at random moments; the others wait until a checkpoint is being written. A run that comes to
its end is started again.
"""

import argparse
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from jaxcls.artifacts import checkpoint, folder

PROGRAM = Path(__file__).parents[2] / "examples" / "sweep.py"
# Nets in several programs, with history: momentum and a decaying rate add to the state.
SWEEP = shlex.split(
    "--model two-layer --hidden 2 16 128 --lr 0.1 1 100 --reg 0 1e-3 --steps 10000 --optimizer momentum --decay 0.99"
)
# The same in one pass over data that are read as they are needed.
STREAMED = [*SWEEP, "--stream"]
# The same on points, halved, with averages of the weights.
HALVED = shlex.split(
    "--model two-layer --samples 48 --hidden 2:64 --lr 1e-2:3 --reg 1e-5:1e-1 --momentum 0.5:0.95 --steps 30000"
    " --optimizer momentum --ema 0.99 --halving --seeds 0 1"
)
PARTIAL = folder.PARTIAL.format(checkpoint.NAME)
COMPARED = ("results.csv", "history.csv", "best.safetensors")  # those that there are


def main(kills: int, seed: int) -> int:
    """The exit code: 1 if anything differs."""
    return max(survives(flags, kills, random.Random(seed)) for flags in (SWEEP, STREAMED, HALVED))


def survives(flags: list[str], kills: int, rng: random.Random) -> int:
    """Kill a sweep with these flags again and again: 0 if it ends as one left alone, else 1."""
    with tempfile.TemporaryDirectory() as place:
        alone, killed = Path(place) / "alone", Path(place) / "killed"
        began = time.perf_counter()
        sweep("--out", alone, *flags).wait()
        duration = time.perf_counter() - began
        expected = {name: (alone / name).read_bytes() for name in COMPARED if (alone / name).exists()}
        print(f"alone: {duration:.1f} s", flush=True)
        done = while_saving = finished = 0
        while done < kills or killed.exists():
            resume = (killed / checkpoint.NAME).exists()
            process = sweep("--resume", killed) if resume else sweep("--out", killed, *flags)
            if done < kills:
                # Not earlier, or no run would get beyond compiling.
                wait_until(process, time.perf_counter() + duration * rng.uniform(0.3, 0.8))
                if done % 2:
                    wait_for(process, killed / PARTIAL)
                process.kill()
            if process.wait() == -signal.SIGKILL:
                saving = (killed / PARTIAL).exists()
                done, while_saving = done + 1, while_saving + saving
                print(f"kill {done}{', while saving' if saving else ''}: {where(killed / checkpoint.NAME)}", flush=True)
                continue
            for name, content in expected.items():
                if not (killed / name).exists() or (killed / name).read_bytes() != content:
                    print(f"{name} is not as the run left alone has it")
                    return 1
            finished += 1
            shutil.rmtree(killed)
    print(f"{kills} kills, {while_saving} of them while saving; all {finished} runs ended as the one left alone")
    return 0


def sweep(*args: object) -> subprocess.Popen:
    """Start a sweep, or resume one."""
    return subprocess.Popen([sys.executable, str(PROGRAM), *map(str, args)], stdout=subprocess.DEVNULL)


def wait_until(process: subprocess.Popen, moment: float) -> None:
    """Wait for a moment, or the end of the process."""
    while process.poll() is None and time.perf_counter() < moment:
        time.sleep(0.001)


def wait_for(process: subprocess.Popen, path: Path) -> None:
    """Wait until there is such a file, or the process has ended."""
    while process.poll() is None and not path.exists():
        pass


def where(path: Path) -> str:
    """Progress of the run that left this checkpoint."""
    if not path.exists():
        return "nothing saved yet"
    snapshot, _ = checkpoint.read(path)
    return f"saved in stage {snapshot.stage}, block {snapshot.block}, step {snapshot.step:,}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(main(**vars(parser.parse_args())))
