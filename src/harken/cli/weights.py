"""harken weights: list, fetch, add and verify encoder checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harken.cli.console import emit, line, progress, say

app = typer.Typer(help="Encoder checkpoints: list, fetch, add, verify.", no_args_is_help=True)


@app.command("list")
def list_(json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the checkpoints of the catalogue with licence and whether each is in the cache."""
    from harken.weights.cache import cached, status
    from harken.weights.catalog import catalog

    listed = {entry.name for entry in catalog()}
    added = [record for record in cached() if record.name not in listed]
    if json:
        emit(
            [
                {
                    "name": entry.name,
                    "encoder": entry.encoder,
                    "status": status(entry),
                    "licence": entry.licence,
                    "size": entry.size,
                    "sha256": entry.sha256,
                    "pinned": entry.pinned,
                    "source": entry.source,
                    "summary": entry.summary,
                }
                for entry in catalog()
            ]
            + [{"name": record.name, "encoder": record.encoder, "status": "cached"} for record in added]
        )
        return
    for entry in catalog():
        size = f"{'?':>6}    " if entry.size is None else f"{entry.size / 2**20:6.1f} MiB"
        note = "" if entry.pinned else "; sha256 known after the first download"
        line(f"{entry.name:<26} {status(entry):<8} {size}  {entry.licence:<11} {entry.summary}{note}")
    for record in added:
        line(f"{record.name:<26} cached   added by hand, encoder {record.encoder}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A catalogue name.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Download a checkpoint, check its sha256 and convert it. The only weights command that uses the network."""
    from harken.encoders.checkpoints import fetch as get
    from harken.weights.catalog import require_entry

    # Before anything is fetched: not all may be used for everything.
    say(f"{name}: licence {require_entry(name).licence}")
    with progress(f"fetching {name}") as bar:
        record = get(name, lambda address, done, total: bar(done, total))
    say(f"{record.name}: ready (sha256 {record.sha256[:16]}...)")
    if json:
        emit(record.model_dump(mode="json"))


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="A downloaded checkpoint.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Its name (default: recognised by content).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check and convert a checkpoint that is already on this machine."""
    from harken.encoders.checkpoints import add as keep

    record = keep(file, name)
    say(f"{record.name}: ready (encoder {record.encoder}, sha256 {record.sha256[:16]}...)")
    if json:
        emit(record.model_dump(mode="json"))


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Names (default: all cached ones).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Verify the sha256 of cached checkpoints."""
    from harken.core.errors import HarkenError
    from harken.weights.cache import cached
    from harken.weights.cache import verify as check

    wanted = names or [record.name for record in cached()]
    if not wanted:
        raise HarkenError("no weights in the cache", next_step="harken weights list shows what can be fetched")
    checked = [check(name) for name in wanted]
    for record in checked:
        say(f"{record.name}: intact")
    if json:
        emit([record.model_dump(mode="json") for record in checked])
