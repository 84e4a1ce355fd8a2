"""`audiosearch info`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from audiosearch.cli.common import Common, clock, common_options, count, fields_of, print_json, printable

if TYPE_CHECKING:
    from audiosearch.types import FileInfo


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def info(common: Common, paths: tuple[str, ...], as_json: bool) -> int:
    """Say what is known of a file: sound, tags, markers, time."""
    with common.open() as library:
        found = [library.info(path) for path in paths]
    if as_json:
        print_json({"files": [fields_of(each) for each in found]})
    else:
        for each in found:
            print_info(each)
    return 0


def print_info(file: FileInfo) -> None:
    """A file's lines on stdout."""
    click.echo(printable(file.path))
    if file.recording_id is not None:
        length = clock(file.duration_seconds) if file.duration_seconds is not None else "of unknown length"
        click.echo(
            f"  sound       {file.codec} in {file.container}, {file.sample_rate:,} Hz, "
            f"{count(file.channels or 0, 'channel')}, {length}"
        )
        click.echo(f"  recording   {file.recording_id}, in {count(len(file.spaces), 'space')}")
    if file.metadata is not None:
        if file.metadata.recorded_at is not None:
            click.echo(f"  recorded    {file.metadata.recorded_at} (by its {file.metadata.recorded_at_source})")
        if file.metadata.time_reference_samples is not None:
            click.echo(f"  since 0:00  {file.metadata.time_reference_samples:,} samples")
        for field in file.metadata.fields:
            click.echo(f"  {field.name:<11} {printable(field.value)} ({field.source})")
        for marker in file.metadata.markers:
            end = f"-{clock(marker.end_seconds)}" if marker.end_seconds is not None else ""
            text = " · ".join(filter(None, (marker.label, marker.note)))
            click.echo(f"  marker      {clock(marker.start_seconds)}{end} {printable(text)}".rstrip())
    for name, trouble in (("warning", file.warning), ("failed", file.failure)):
        if trouble:
            click.echo(f"  {name:<11} {printable(trouble)}")
