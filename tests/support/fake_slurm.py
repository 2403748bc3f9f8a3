"""Slurm as our script sees it: `sbatch`, `srun` and `scontrol` in a folder for PATH, all nodes on this machine."""

from __future__ import annotations

from pathlib import Path

_SBATCH = """#!/bin/bash
# Keeps the script that it is handed, and starts it in the background as the job's first launch.
cat > "$SLURM_HOME/script"
cp "$SLURM_HOME/script" "$SLURM_HOME/job.sh"
"$(dirname "$0")/launch" && echo 4321
"""
_LAUNCH = """#!/bin/bash
# One launch of the job, whose process is noted; its log is appended to, as --open-mode=append says.
export SLURM_JOB_ID=4321 SLURM_JOB_NODELIST=two SLURM_CPUS_PER_TASK=1
setsid bash "$SLURM_HOME/job.sh" >> "$SLURM_HOME/log" 2>&1 < /dev/null &
echo $! > "$SLURM_HOME/pid"
echo launched >> "$SLURM_HOME/launches"
"""
_SRUN = """#!/bin/bash
# A job step: the command without srun's own options.
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
_SCONTROL = """#!/bin/bash
case $1 in
    show) printf '127.0.0.1\\nlocalhost\\n' ;;
    requeue) "$(dirname "$0")/launch" ;;
esac
"""


def install(folder: Path) -> None:
    """Writes the programs into a folder; `SLURM_HOME` says where they keep script, log and process."""
    folder.mkdir(parents=True, exist_ok=True)
    programs = {"sbatch": _SBATCH, "launch": _LAUNCH, "srun": _SRUN, "scontrol": _SCONTROL}
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
