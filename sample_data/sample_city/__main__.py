"""`python -m sample_city OUT`: make the fictional city on disk."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .city import CITY_FILE, City
from .generation import SEED, UNTIL, generate


class Size(StrEnum):
    """How large a city: about 40, 1,500 or 6,000 instances."""

    SMALL = "small"
    DEFAULT = "default"
    LARGE = "large"


def main(
    out: Annotated[Path, typer.Argument(help="An empty folder, or one to be made.")],
    size: Annotated[
        Size, typer.Option(help="small: 27 MB; default: 0.6 GB; large: 2.3 GB.")
    ] = Size.DEFAULT,
    until: Annotated[
        datetime,
        typer.Option(formats=["%Y-%m-%d"], help="The last day of the six weeks of studies."),
    ] = datetime.combine(UNTIL, datetime.min.time()),
    seed: Annotated[
        str, typer.Option(help="Another seed gives other UIDs and other noise.")
    ] = SEED,
) -> None:
    """Make three fictional hospitals, their patients and their studies. Nobody in it exists."""
    console = Console()
    try:
        if console.is_terminal:
            city = _with_bar(console, out, size, until, seed)
        else:
            city = generate(out, size, _in_lines, until=until.date(), seed=seed)
    except (FileExistsError, FileNotFoundError) as refused:
        typer.echo(str(refused), err=True)
        raise typer.Exit(1) from refused
    typer.echo(
        f"{len(city.people)} people, {len(city.records)} registrations, {len(city.studies)} "
        f"studies, {city.number_of_instances} instances in {out}; see {CITY_FILE}."
    )


def _with_bar(console: Console, out: Path, size: Size, until: datetime, seed: str) -> City:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("Instances")
        return generate(
            out,
            size,
            lambda done, total: bar.update(task, completed=done, total=total),
            until=until.date(),
            seed=seed,
        )


def _in_lines(done: int, total: int) -> None:
    if done == total or done % 250 == 0:
        typer.echo(f"{done} of {total} instances")


if __name__ == "__main__":
    typer.run(main)
