"""``lamanas``: a table of commands. Only the module of the command that was asked for is imported."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from cli.errors import CommandError

COMMANDS = {
    "serve": "start everything on this machine and keep it running",
    "token": "print the admin token",
    "keys": "make, list and revoke API keys",
    "train": "meta-train a model",
    "evaluate": "measure a model's accuracy on episodes of a data set",
    "data": "fetch or make data sets",
    "app": "run the HTTP app alone (for compose)",
    "worker": "run one worker alone (for compose)",
    "init": "make the secrets of a compose project",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 for what the message says, 2 for a wrong command line, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="lamanas",
        description="Few-shot image classification as a service.",
        epilog="example: lamanas serve",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, words in COMMANDS.items():
        if given and given[0] == name:
            module = importlib.import_module(f"cli.{name}")
            module.add_parser(commands)
        else:
            commands.add_parser(name, help=words)
    options = parser.parse_args(given)
    try:
        return int(module.run(options))
    except CommandError as error:
        print(f"lamanas {options.command}: {error}", file=sys.stderr)
    except ValidationError as error:
        for wrong in error.errors():
            name = "_".join(str(part) for part in wrong["loc"]).upper()
            setting = f"{name}: " if name == "REDIS_URL" else f"LAMANAS_{name}: " if name else ""
            print(f"lamanas {options.command}: {setting}{wrong['msg'].removeprefix('Value error, ')}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


if __name__ == "__main__":
    sys.exit(main())
