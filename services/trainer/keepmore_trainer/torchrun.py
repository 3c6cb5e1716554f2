"""One of the processes of a fine-tuning: `torchrun --nproc-per-node N -m keepmore_trainer.torchrun FOLDER`.

FOLDER holds a plan. The first process says on stdout what was done, and each what went wrong, one JSON
object a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from keepmore.errors import InternalError, KeepmoreError, from_dict
from keepmore_trainer.distributed import assembled
from keepmore_trainer.run_plan import COMPLAINTS, DONE, STOP, Plan, Tell
from keepmore_trainer.train_loop import Interrupted, fit


def run(plan: Plan, processes: int, tell: Tell) -> None:
    """`fit` in so many processes. Raises what it raises."""
    plan.write()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo")}
    command += ["-m", __name__, plan.folder]
    complaints = plan.file(COMPLAINTS)
    with (
        complaints.open("w") as heard,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=heard, text=True, env=environment) as process_group,
    ):
        try:
            error = _follow(process_group, plan, tell)
        finally:
            process_group.terminate()
    if error:
        raise error
    if plan.file(STOP).exists():
        raise Interrupted
    if not plan.file(DONE).exists():
        raise InternalError(f"torchrun ended with {process_group.returncode}: {complaints.read_text()[-2000:]}")


def _follow(process_group: subprocess.Popen[str], plan: Plan, tell: Tell) -> KeepmoreError | None:
    error = None
    for line in process_group.stdout or ():
        if not line.startswith("{"):
            continue
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            error = from_dict(said["error"])
        elif tell(said["images"]):
            plan.file(STOP).touch()
    return error


def main(folder: str) -> None:
    plan = Plan.read(Path(folder))

    def tell(images: int) -> bool:
        print(json.dumps({"images": images}), flush=True)
        return plan.file(STOP).exists()

    with assembled() as process_group:
        try:
            fit(plan, process_group, tell)
        except KeepmoreError as error:  # any of them may be the one that lacks memory
            print(json.dumps({"error": error.as_dict()}), flush=True)
            sys.exit(1)
        except Interrupted:
            pass


if __name__ == "__main__":
    main(sys.argv[1])
