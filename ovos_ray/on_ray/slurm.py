"""A verb as a Slurm job: the script that starts Ray on the job's nodes, runs the verb, and queues itself again in time.

Ray is started by two lines and ends with its job steps. `ray symmetric-run` would do it in one, but it ends with `ray
stop`, which takes every Ray process of yours on a node with it, those of another job there too.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovos_ray.errors import ClusterError, ConfigError

__all__ = ["SlurmJob", "queue"]

_SCRIPT = r"""#!/bin/bash
# {made_by}
{directives}
# A copy of this signal comes to this script before the time limit: it queues itself again and goes on where it was.
#SBATCH --signal=B:USR1@{notice_s}
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

cd {folder} || exit 1
export PATH={programs}:$PATH
export RAY_TMPDIR=/tmp/ovos-$SLURM_JOB_ID RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # job steps do not inherit it
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN
# The folder may be there from before a requeue; one that another user of the node has made is not taken.
own='mkdir -m 700 "$RAY_TMPDIR" 2> /dev/null || [ -d "$RAY_TMPDIR" -a -O "$RAY_TMPDIR" -a ! -L "$RAY_TMPDIR" ] \
    && chmod 700 "$RAY_TMPDIR" || {{ echo "$RAY_TMPDIR on $HOSTNAME is of somebody else"; exit 1; }}'
eval "$own"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${{nodes[0]}}
port=$((20000 + SLURM_JOB_ID % 10000))  # Ray gives 10002 to 19999 to its workers
steps=() limit=

ray_on() {{  # NODE OPTIONS: Ray on a node of the job, for as long as the step lives
    srun --nodes=1 --ntasks=1 --overlap --nodelist="$1" \
        bash -c "$own"'; exec ray start "$@"' ray --block --num-cpus="$SLURM_CPUS_PER_TASK" \
        --num-gpus="${{SLURM_GPUS_ON_NODE:-0}}" --dashboard-agent-listen-port=0 "${{@:2}}" > "$RAY_TMPDIR/$1.log" 2>&1 &
    steps+=($!)
}}

end() {{
    kill "${{steps[@]}}" 2> /dev/null
    wait "${{steps[@]}}" 2> /dev/null
    rm -rf "$RAY_TMPDIR"
}}

ray_on "$head" --head --port=$port
for ((second = 0; ; second++)); do
    (exec 3<> "/dev/tcp/$head/$port") 2> /dev/null && break
    if ((second > 120)) || ! kill -0 "${{steps[0]}}" 2> /dev/null; then
        echo "Ray did not start on $head:"
        cat "$RAY_TMPDIR/$head.log"
        end
        exit 1
    fi
    sleep 1
done
for node in "${{nodes[@]:1}}"; do ray_on "$node" --address="$head:$port"; done

RAY_ADDRESS=$head:$port {command} &
driver=$!
trap 'limit=1; kill -TERM $driver; (sleep 60; kill -KILL $driver) > /dev/null 2>&1 & killer=$!' USR1
wait $driver
status=$?
if [ -n "$limit" ]; then
    wait $driver
    kill $killer
    end
    echo "the time limit is near: queued again; it goes on from the last checkpoints"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
end
exit $status
"""


@dataclass(frozen=True)
class SlurmJob:
    """What Slurm is asked for.

    Attributes:
        command: The words of the command that runs on the first node, such as `python -m ovos_ray sweep …`.
        folder: Where it runs; on a disk that all nodes see.
        programs: Folder of the `python` and `ray` to take, on such a disk as well.
        partition: Slurm's partition; None: its default.
        time: Time limit as Slurm writes it (`24:00:00`); None: the partition's.
        nodes: How many nodes.
        gpus_per_node: GPUs of each; 0: none are asked for.
        cpus_per_node: CPUs of each.
        more: Further options of `sbatch`, as they are.
        notice_s: Seconds before the limit at which the job is queued again.
        made_by: A first line that says where the script comes from.
    """

    command: Sequence[str]
    folder: str
    programs: str
    partition: str | None = None
    time: str | None = None
    nodes: int = 1
    gpus_per_node: int = 1
    cpus_per_node: int = 16
    more: Sequence[str] = ()
    notice_s: int = 120
    made_by: str = ""

    def script(self) -> str:
        """Returns the script for `sbatch`.

        Raises:
            ConfigError: An option of `sbatch` is none, or holds a line end.
        """
        name = f"ovos-{self.command[3] if len(self.command) > 3 else 'job'}"
        directives = [
            f"--job-name={name}",
            f"--output={name}-%j.log",
            f"--partition={self.partition}" if self.partition else "",
            f"--time={self.time}" if self.time else "",
            f"--nodes={self.nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={self.cpus_per_node}",
            f"--gpus-per-node={self.gpus_per_node}" if self.gpus_per_node else "",
            *self.more,
        ]
        for option in directives:
            if option and (not option.startswith("-") or not option.isprintable()):
                raise ConfigError(
                    f"{option!r} is not an option of sbatch", "write it as sbatch does: --sbatch --mem=64G"
                )
        return _SCRIPT.format(
            made_by=" ".join(self.made_by.split()),
            directives="\n".join(f"#SBATCH {option}" for option in directives if option),
            notice_s=self.notice_s,
            folder=shlex.quote(self.folder),
            programs=shlex.quote(self.programs),
            command=shlex.join(self.command),
        )


def queue(job: SlurmJob) -> str:
    """Hands a job to `sbatch`; returns its number.

    Raises:
        ClusterError: There is no `sbatch` here, or it refuses the job.
    """
    program = shutil.which("sbatch")
    if program is None:
        raise ClusterError(
            "there is no sbatch on this machine",
            "submit from a login node of the cluster, or add --print and take the script there",
        )
    sent = subprocess.run(
        [program, "--parsable"], input=job.script(), capture_output=True, text=True, cwd=Path(job.folder)
    )
    if sent.returncode:
        said = sent.stderr.strip() or f"exit status {sent.returncode}"
        raise ClusterError(
            f"sbatch refuses the job: {said.splitlines()[-1]}",
            "see sinfo for partitions and limits; what else your cluster wants is given as --sbatch --account=NAME",
        )
    return sent.stdout.strip().partition(";")[0]
