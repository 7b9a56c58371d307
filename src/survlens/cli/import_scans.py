"""`survlens import`: from what a hospital exports to a table of scans."""

from __future__ import annotations

from pathlib import Path

import click

from survlens.cli.failures import ExitCode
from survlens.cli.group import traceback_option
from survlens.cli.screen import say, show_table


@click.group("import")
def import_group() -> None:
    """Make a table of scans from an export."""


@import_group.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="Folder of the results.")
@click.option(
    "--structure", "structures", multiple=True, metavar="NAME", help="Structure of the mask; several are united."
)
@click.option("--series", metavar="RULE", help="Number of the series, or words of its description, modality or kernel.")
@click.option("--largest", is_flag=True, help="Take the series with most slices where a patient has several.")
@click.option(
    "--nifti/--keep-dicom",
    "nifti",
    default=True,
    show_default=True,
    help="Write scans as NIfTI, or leave them and write their folders into the table.",
)
@click.option(
    "--root", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Where paths start; DIR of --out."
)
@click.option("--resample-missing", is_flag=True, help="Interpolate slices that are missing.")
@click.option(
    "--salt-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Secret that salts names; else SURVLENS_SALT, else a random one kept in DIR (do not share it).",
)
@click.option(
    "--link",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write which salted name stands for whom; outside DIR. Identifies patients.",
)
@traceback_option
@click.pass_context
def dicom(
    context: click.Context,
    folder: Path,
    out: Path,
    structures: tuple[str, ...],
    series: str | None,
    largest: bool,
    nifti: bool,
    root: Path | None,
    resample_missing: bool,
    salt_file: Path | None,
    link: Path | None,
) -> None:
    """Write DIR/scans.csv, scans and masks from the DICOM files in FOLDER, without identifiers.

    Ends with exit code 3 where a patient could not be taken as a whole; the others are imported.
    """
    from survlens.study.import_scans import ImportSettings, import_dicom

    settings = ImportSettings(
        structures=structures,
        series=series,
        largest=largest,
        keep_dicom=not nifti,
        fill_missing=resample_missing,
    )
    done = import_dicom(folder, out, settings, root=root, salt_file=salt_file, link=link, tell=say)
    if done.report.findings:
        show_table("what was found", ("severity", "finding", "where", "what"), done.report.rows())
    counts = done.report.counts
    say(f"{counts['scans']} of {counts['patients']} patients have a scan and {counts['masks']} a mask: see scans.csv.")
    if not done.report.ok:
        say("some patients were not taken as a whole; see what is listed as error.")
        context.exit(int(ExitCode.DATA))
