"""Measure the throughput of a deployed image classifier. The engine is `cortex.loadtest`."""

import sys

import click
from rich.console import Console

from cortex.errors import UserError
from cortex.loadtest import HTTP, ClosedLoop, images_json, picture, report, run


@click.command()
@click.argument("img_url", envvar="IMG_URL")
@click.argument("endpoint", envvar="ENDPOINT")
@click.option(
    "-w",
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of processes that send requests.",
)
@click.option(
    "-t", "--threads", type=click.IntRange(1), default=1, show_default=True, help="Number of threads per worker."
)
@click.option(
    "-s", "--samples", type=click.IntRange(1), default=10, show_default=True, help="Number of requests per thread."
)
@click.option(
    "-i",
    "--time-based",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="How long each thread sends requests. With it, -s is not considered.",
)
@click.option(
    "-b", "--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Number of images per request."
)
def main(
    img_url: str, endpoint: str, workers: int, threads: int, samples: int, time_based: float | None, batch_size: int
) -> None:
    """Test the throughput of an image classifier, on CPU, GPU or accelerator alike.

    IMG_URL is the URL or the path of a picture, ENDPOINT the URL of the API. Either may come from the environment
    variable of its name instead. Each thread sends its next request when the last one is answered. Only answers with
    a 2xx status count as inferences; exit code 1 says that there were none.
    """
    load = ClosedLoop(workers, threads, samples, time_based)
    console = Console(stderr=True)
    try:
        door = HTTP(endpoint)
        payload = images_json(picture(img_url), batch_size)
        with console.status("starting ...") as status:
            summary = run(load, door, payload, lambda so_far: status.update(report.line(load, so_far)))
    except UserError as error:
        raise click.ClickException(str(error)) from error
    Console().print(report.table(summary))
    if not summary.requests:
        sys.exit(1)


if __name__ == "__main__":
    main()
