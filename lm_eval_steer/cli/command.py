"""A subcommand of the command line: its parser, with help as it was written."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # argparse's own name for what add_subparsers returns; it is generic in the stubs only
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_command(
    subparsers: Subparsers, name: str, brief: str, description: str, epilog: str, **more: Any
) -> argparse.ArgumentParser:
    """Return the parser of a new subcommand.

    Args:
        subparsers: what ``ArgumentParser.add_subparsers`` returned.
        name: as it is typed.
        brief: one line for the list of commands.
        description: what it does; line breaks are kept.
        epilog: examples; line breaks are kept.
        more: what else ``add_parser`` takes.
    """
    return subparsers.add_parser(
        name,
        help=brief,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **more,
    )
