"""`label`: a page on this machine to draw the one mask that a video needs."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from ovos_ray.cli.console import console, counted
from ovos_ray.cli.models import fetched
from ovos_ray.cli.options import Network, PrompterName, PrompterWeights
from ovos_ray.errors import ConfigError

__all__ = ["label"]

_SHOWN = 3  # names of videos without a mask

EXAMPLE = "ovos-ray label my-videos --checkpoint runs/one-shot"


def label(
    path: Annotated[Path, typer.Argument(help="A video file, a folder of frames, or a folder of these.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A run, weights, or a name from `ovos-ray models`: shows what it makes of your mask."),
    ] = None,
    network: Network = None,
    shortest_side: Annotated[
        int | None, typer.Option(help="Size of that preview (default: 480 on a GPU, 240 on a CPU).")
    ] = None,
    prompter: PrompterName = "grabcut",
    prompter_weights: PrompterWeights = None,
    port: Annotated[int, typer.Option(help="Where to listen, on this machine only; 0: any free port.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
) -> None:
    """Draws masks in the browser, and writes them where `pack --layout folder` reads them."""
    from ovos_ray.evaluate.infer.tracker import best_device
    from ovos_ray.label.prompts import prompter_of
    from ovos_ray.label.server import LabelServer
    from ovos_ray.label.session import Session
    from ovos_ray.train.load_network import load_network

    loaded = None if checkpoint is None else load_network(fetched(checkpoint), network).to(best_device())
    made_by = prompter_of(prompter, prompter_weights)
    session = Session(path, loaded, shortest_side or (240 if best_device().type == "cpu" else 480), made_by)
    try:
        server = LabelServer(session, port)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--port {port}: {error}", "give another port, or 0 for any free one") from error
    with server:
        videos = counted(len(session.names), "video")
        console.print(f"{videos} of {session.folder.root}; masks go to {session.folder.root}/masks")
        console.print(f"draw them at {server.url}")
        console.print("the address is for you alone: who has it can draw, too. Ctrl+C ends")
        if browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            root = session.folder.root
            without = [one["name"] for one in session.overview()["videos"] if not one["labels"]]
            if without:
                some = ", ".join(without[:_SHOWN]) + (" …" if len(without) > _SHOWN else "")
                console.print(f"{len(without)} of {videos} without a mask: {some}; the same command goes on")
            if len(without) < len(session.names):
                console.print(f"next: ovos-ray pack {root.name} --layout folder --root {root} --out shards/{root.name}")
        finally:
            session.close()
