"""``lamanas completion``: completion scripts for shells."""

import argparse
from typing import Any

from cli.main import full_parser

DESCRIPTION = """Print a script that makes the shell complete commands, options and file names.

example: lamanas completion bash > ~/.local/share/bash-completion/completions/lamanas"""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "completion",
        help="print a completion script for a shell",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(args: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(full_parser(), args.shell))
    return 0
