"""`alexnet data`: the data sets that others publish."""

from typing import TYPE_CHECKING, Annotated, Any, Union

from tyro.conf import Positional, arg, subcommand

from alexnet.cli.next_step import next_step
from alexnet.cli.tables import print_line, print_path, print_table

if TYPE_CHECKING:
    from alexnet.published.registry import DataSet


def list_data(name: Positional[Annotated[str | None, arg(metavar="[NAME]", help_behavior_hint="")]] = None) -> None:
    """List the data sets that `data pull` can download: size, photos, classes, licence, and the
    error to expect.

    Args:
        name: say all of one data set: the address, the length and the SHA-256 of each file, and
            where to put them on a machine without a network.
    """
    from alexnet.published import data

    if name is not None:
        _describe(data.get_data_set(name))
        return
    rows = data.rows()
    cells = [
        [
            row["name"],
            f"{row['mb']:,.1f}",
            " + ".join(f"{count:,}" for count in row["photos"]),
            row["classes"],
            "-" if row["error"] is None else f"{row['error']:.1f} %",
            "yes" if row["here"] else "no",
            row["licence"],
        ]
        for row in rows
    ]
    print_table(["name", "MB", "photos", "classes", "error", "here", "licence"], cells)
    print("Photos to train on + to test with. `alexnet data list NAME` says how an error was measured.")
    next_step("data", "pull", next((row["name"] for row in rows if not row["here"]), rows[0]["name"]))


def _describe(data: "DataSet") -> None:
    """Print all about one data set."""
    from alexnet.published.data import is_here, place_of_files
    from alexnet.published.registry import cache_folder

    print_line(f"{data.name}: {' + '.join(f'{count:,}' for count in data.photos)} photos of {len(data.classes)} classes:")
    print_line(f"  {', '.join(data.classes)}")
    for file in data.files:
        print_line(f"{file.file}: {file.bytes:,} bytes, SHA-256 {file.sha256}")
        print_line(f"  {file.url}")
    print_line(f"licence: {data.files[0].licence}")
    if data.error is not None:
        print_line(f"error: {data.error:.1f} % ({data.measured}; records/{data.record})")
    if is_here(data):
        print_line(f"here: {cache_folder() / data.name}")
        next_step("prepare", data.name, "store")
        return
    print_line(f"Without a network: put {'it' if len(data.files) == 1 else 'them'} into {place_of_files(data)} and pull.")
    next_step("data", "pull", data.name)


def pull_data(name: Positional[Annotated[str, arg(metavar="NAME")]]) -> None:
    """Download a data set into the cache, verify its hashes, and unpack it. The same command
    continues after an interruption.

    An archive is removed when its photos are unpacked. The cache is the folder $ALEXNET_CACHE, else
    ~/.cache/alexnet.

    Args:
        name: one of those that `alexnet data list` shows.
    """
    from alexnet.published import data

    print_path(data.pull(data.get_data_set(name)))
    next_step("prepare", name, "store")


DATA: dict[str, Any] = {"list": list_data, "pull": pull_data}

if TYPE_CHECKING:
    DataChoice = Any
else:
    DataChoice = Union[  # noqa: UP007 - built from a table
        tuple(Annotated[Any, subcommand(name, constructor=action)] for name, action in DATA.items())
    ]


def data(action: DataChoice) -> None:
    """List and download the data sets that learners and teachers use."""
