"""`submit`: the same verb as a job of a Ray cluster, checked here before anything is sent.

What would fail there minutes later fails here at once: unknown verbs, options and settings, paths that mean something
else on another machine, a package that is too large, a second job for the same results.
"""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ovos_ray.cli.console import console, counted, tell
from ovos_ray.errors import ClusterError, first_line

__all__ = ["submit"]

EXAMPLE = (
    "ovos-ray submit --address http://HEAD:8265 -- sweep search_spaces.smoke "
    "data.shards=/mnt/shards/davis storage=/mnt/runs tracking_uri=http://MLFLOW:5000"
)
_INTERRUPTED = 130
_SLURM = "With --slurm"


def submit(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="VERB [ARGUMENTS]", help="What the job is to do.")],
    address: Annotated[str | None, typer.Option(help="Its dashboard; default: RAY_ADDRESS, or here.")] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not follow the job's log.")] = False,
    submission_id: Annotated[str | None, typer.Option(help="Name of the job; default: verb and time.")] = None,
    runtime_env: Annotated[str | None, typer.Option(help="Runtime environment: a YAML file, or JSON.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, or NAME for its value here; shown by Ray.")] = None,
    install: Annotated[bool, typer.Option("--install", help="Let pip bring the dependencies to every node.")] = False,
    token_file: Annotated[Path | None, typer.Option(help="File with the cluster's token.")] = None,
    num_cpus: Annotated[float, typer.Option(help="CPUs of the job's own process, beside its workers'.")] = 0,
    num_gpus: Annotated[float, typer.Option(help="GPUs of the job's own process (`predict`).")] = 0,
    max_package_mib: Annotated[float, typer.Option(help="Largest folder that is sent along.")] = 100,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Queue it with sbatch instead.", rich_help_panel=_SLURM)
    ] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the script only.", rich_help_panel=_SLURM)] = False,
    partition: Annotated[str | None, typer.Option(help="Slurm's partition.", rich_help_panel=_SLURM)] = None,
    time: Annotated[str | None, typer.Option(help="Time limit, such as 24:00:00.", rich_help_panel=_SLURM)] = None,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes.", rich_help_panel=_SLURM)] = 1,
    gpus_per_node: Annotated[int, typer.Option(min=0, help="GPUs of each.", rich_help_panel=_SLURM)] = 1,
    cpus_per_node: Annotated[int, typer.Option(min=1, help="CPUs of each.", rich_help_panel=_SLURM)] = 16,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="More for sbatch, such as --account=NAME.", rich_help_panel=_SLURM)
    ] = None,
) -> None:
    """Runs a verb as a job of a Ray cluster, or of Slurm; exits as the job does. The same command again resumes."""
    if slurm or show:
        from ovos_ray.cli.submit_slurm import submit_slurm

        verb, *arguments = command
        options = {"partition": partition, "time": time, "nodes": nodes, "more": sbatch or []}
        options |= {"gpus_per_node": gpus_per_node, "cpus_per_node": cpus_per_node}
        submit_slurm(verb, arguments, _parsed(context, verb, arguments), show=show, options=options)
        return
    from ovos_ray.on_ray.job_client import connect, use_token
    from ovos_ray.on_ray.job_environment import job_environment, parse_environment

    environment, variables = parse_environment(runtime_env, env or [])
    use_token(token_file)  # before anything imports Ray
    from ovos_ray.on_ray.job_package import JobPackage
    from ovos_ray.on_ray.job_paths import refuse_relative_paths

    verb, *arguments = command
    parameters = _parsed(context, verb, arguments)
    refuse_relative_paths(parameters, _positional(context, verb))
    package = JobPackage.of(Path.cwd(), environment.get("excludes", ()))
    package.check(max_package_mib)
    if package.left_out:
        tell("not sent:", package.left_out_text(), style="yellow")
    client = connect(address, token_file)
    entrypoint = shlex.join(["python", "-m", "ovos_ray", verb, *arguments])
    _refuse_second(client, entrypoint)
    name = submission_id or f"{verb}-{datetime.datetime.now().strftime('%Y%m%d-%H%M%S')}"
    console.print(f"sending {counted(len(package.sizes), 'file')}, {package.mib:.1f} MiB, to {client.get_address()}")
    try:
        job = client.submit_job(
            entrypoint=entrypoint,
            submission_id=name,
            runtime_env=job_environment(environment, variables, excludes=package.patterns(), install=install),
            entrypoint_num_cpus=num_cpus,
            entrypoint_num_gpus=num_gpus,
        )
    except RuntimeError as error:
        raise ClusterError(
            f"the cluster refuses the job: {first_line(error)}",
            "give another --submission-id, or none" if "already" in str(error) else None,
        ) from error
    raise typer.Exit(_followed(client, job, wait=not no_wait))


def _parsed(context: typer.Context, verb: str, arguments: list[str]) -> dict[str, Any]:
    """Returns the parameters of a verb as it would parse them."""
    assert context.parent is not None
    verbs: dict[str, Any] = context.parent.command.commands  # type: ignore[attr-defined]
    if verb not in verbs or verb == "submit":
        known = ", ".join(name for name in verbs if name != "submit")
        raise typer.BadParameter(f"there is no verb {verb!r}; choose one of {known}")
    return verbs[verb].make_context(verb, list(arguments)).params  # type: ignore[no-any-return]


def _positional(context: typer.Context, verb: str) -> list[str]:
    assert context.parent is not None
    described: Any = context.parent.command.commands[verb]  # type: ignore[attr-defined]
    return [parameter.name for parameter in described.params if parameter.param_type_name == "argument"]


def _refuse_second(client: Any, entrypoint: str) -> None:
    """Two jobs of the same command would write the same folders."""
    for job in client.list_jobs():
        if job.entrypoint == entrypoint and not job.status.is_terminal():
            name = job.submission_id
            raise ClusterError(
                f"job {name} runs the same command already",
                f"follow it: ray job logs --follow {name}; or stop it first: ray job stop {name}",
            )


def _followed(client: Any, job: str, *, wait: bool) -> int:
    """Prints how to follow a job, follows it, and returns its exit status."""
    from ovos_ray.on_ray.job_client import follow

    how = f"follow: ray job logs --follow {job}   stop: ray job stop {job}"
    console.print(f"job {job}; {how}")
    if not wait:
        return 0
    try:
        return follow(client, job, console)
    except KeyboardInterrupt:
        console.print(f"\nthe job goes on without this terminal; {how}")
        return _INTERRUPTED
