"""Measure the throughput of a deployed image classifier. The engine is `cortex.loadtest`."""

import sys

try:  # Ctrl-C may come while all of this is read
    import os
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    import click
    from rich.console import Console

    from cortex.errors import Error, UserError
    from cortex.loadtest import files, redaction, report, units
    from cortex.loadtest.arguments import arguments, asked
    from cortex.loadtest.command import carry_out, job
    from cortex.loadtest.findings import Report
    from cortex.loadtest.live import Line
except KeyboardInterrupt:
    sys.exit(1)


@arguments
def main(json_file: Path | None, csv_file: Path | None, html_file: Path | None, quiet: bool, **chosen: Any) -> None:
    """Test the throughput of an image classifier, on CPU, GPU or accelerator alike.

    IMG_URL is the URL or the path of a picture, ENDPOINT the URL of the API. Either may come from the environment
    variable of its name instead. Unless a load is chosen, each thread sends its next request when the last one is
    answered. Only answers with a 2xx status count as inferences; exit code 1 says that there were none, or that a
    condition of --assert does not hold.

    IMG_URL may also be a folder of pictures, a JSON file that is sent as it is, or a PredictionLog file of recorded
    requests. Ctrl-C ends a run early, and reports.
    """
    targets = ((json_file, files.write_json), (csv_file, files.write_csv), (html_file, files.write_html))
    writers = [(path, write) for path, write in targets if path]
    options = asked(chosen)
    try:
        for path, _ in writers:
            files.check(path)
        with Line(Console(stderr=True), quiet) as line:
            found = carry_out(job(options, redaction.command(["throughput_test.py", *sys.argv[1:]])), line)
    except Error as error:
        raise click.ClickException(redaction.redacted(str(error))) from error
    unwritten = [problem for path, write in writers if (problem := _unwritten(write, found, path))]
    if not quiet and (problem := _untold(found)):
        unwritten.append(problem)
    for problem in unwritten:
        click.echo(f"Error: {redaction.redacted(str(problem))}", err=True)
    sys.exit(_code(found, quiet) or bool(unwritten))


def _unwritten(write: Callable[[Report, Path], None], found: Report, path: Path) -> UserError | None:
    """Write a file of a run that has been made, and return what came in the way: no other report is lost for it."""
    try:
        write(found, path)
    except UserError as error:
        return error
    return None


def _untold(found: Report) -> UserError | None:
    """Print the table, and return what came in the way."""
    try:
        Console().print(report.table(found))
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still in the buffer
        return UserError(f"standard output: {error.strerror}")
    return None


def _code(found: Report, quiet: bool) -> int:
    """Return 1 when a condition failed or nothing was answered, and say so where no table does."""
    failed = [f"{check.text} ({check.actual})" for check in found.checks if not check.passed]
    if not found.result.requests:
        failed.append(f"nothing was answered ({units.text(found.result.errors) or 'no request ended'})")
    for each in failed if quiet else ():
        click.echo(f"failed: {each}", err=True)
    return 1 if failed else 0


if __name__ == "__main__":
    main()
