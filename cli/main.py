"""``lamanas``: the table of commands. Only the module of the given command is imported."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from cli.errors import CommandError, wrong_settings

COMMANDS = {
    "serve": "start everything on this machine and keep it running",
    "login": "sign in to a service",
    "adapt": "adapt a classifier to a folder of labelled images",
    "predict": "classify images with an episode's classifier",
    "episodes": "list, show and delete episodes",
    "export": "save an episode's classifier as an ONNX file",
    "classify": "classify images with a downloaded classifier, without a service",
    "models": "list, switch, add and remove versions of the meta-model",
    "datasets": "list, add and remove data sets that any worker can train on",
    "train": "meta-train a model, on this machine or on a service",
    "evaluate": "measure a model's accuracy on episodes of a data set",
    "reproduce": "reproduce the paper's table",
    "bench": "measure how fast this machine adapts, predicts and trains",
    "plot": "draw a run's curves, a model's cells or its learned loss",
    "data": "download or generate data sets",
    "token": "print the admin token",
    "keys": "create, list and revoke API keys",
    "gc": "remove old runs, revoked keys and leftovers",
    "doctor": "check this installation and say how to fix its problems",
    "completion": "print a completion script for a shell",
    "app": "run the HTTP app alone (for compose)",
    "worker": "run one worker alone (for compose)",
    "init": "create the secrets of a compose project",
}


def full_parser() -> argparse.ArgumentParser:
    """All commands with their options: slow, since each command's module is imported."""
    parser, commands = _parser()
    for name in COMMANDS:
        importlib.import_module(f"cli.{name}").add_parser(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 after an error, 2 for an invalid command line, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _parser()
    for name, words in COMMANDS.items():
        if given and given[0] == name:
            module = importlib.import_module(f"cli.{name}")
            module.add_parser(commands)
        else:
            commands.add_parser(name, help=words)
    options = parser.parse_args(given)
    try:
        return int(module.run(options))
    except BrokenPipeError:
        # The reader of the output, such as `head`, has closed it. Python must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except CommandError as error:
        print(f"lamanas {options.command}: {error}", file=sys.stderr)
    except ValidationError as error:
        for words in wrong_settings(error):
            print(f"lamanas {options.command}: {words}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _parser() -> tuple[argparse.ArgumentParser, Any]:
    parser = argparse.ArgumentParser(
        prog="lamanas",
        description="Few-shot image classification as a service.",
        epilog="example: lamanas serve",
    )
    return parser, parser.add_subparsers(dest="command", metavar="COMMAND", required=True)


if __name__ == "__main__":
    sys.exit(main())
