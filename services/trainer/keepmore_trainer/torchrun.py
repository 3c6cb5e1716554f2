"""One of the processes of a fine-tuning: `torchrun --nproc-per-node N -m keepmore_trainer.torchrun FOLDER`.

FOLDER has a plan. The first process reports its progress on stdout, and each its error, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from keepmore.errors import InternalError, KeepmoreError, from_dict
from keepmore_trainer.distributed import process_group
from keepmore_trainer.run_plan import DONE, STDERR, STOP, OnStep, Plan
from keepmore_trainer.train_loop import Interrupted, fit


def run(plan: Plan, processes: int, on_step: OnStep) -> None:
    """`fit` in `processes` processes; raises the same errors."""
    plan.write()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
    command += ["-m", __name__, plan.folder]
    stderr = plan.file(STDERR)
    with (
        stderr.open("w") as sink,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink, text=True, env=environment) as torchrun,
    ):
        try:
            error = _follow(torchrun, plan, on_step)
        finally:
            torchrun.terminate()
    if error:
        raise error
    if plan.file(STOP).exists():
        raise Interrupted
    if not plan.file(DONE).exists():
        raise InternalError(f"torchrun ended with {torchrun.returncode}: {stderr.read_text()[-2000:]}")


def _follow(torchrun: subprocess.Popen[str], plan: Plan, on_step: OnStep) -> KeepmoreError | None:
    error = None
    for line in torchrun.stdout or ():
        if not line.startswith("{"):
            continue
        message = json.loads(line)
        if "error" in message:
            error = from_dict(message["error"])
        elif on_step(message["images"]):
            plan.file(STOP).touch()
    return error


def main(folder: str) -> None:
    plan = Plan.read(Path(folder))

    def on_step(images: int) -> bool:
        print(json.dumps({"images": images}), flush=True)
        return plan.file(STOP).exists()

    with process_group() as group:
        try:
            fit(plan, group, on_step)
        except KeepmoreError as error:  # any process may be the one that lacks memory
            print(json.dumps({"error": error.as_dict()}), flush=True)
            sys.exit(1)
        except Interrupted:
            pass


if __name__ == "__main__":
    main(sys.argv[1])
