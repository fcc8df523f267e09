"""The ``fssbench`` command, whose subcommands are imported on demand."""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence

import click

import fssbench
from fssbench.errors import FssbenchError, near, one_line
from fssbench.runtime import termination

_VERBS = (
    "evaluate", "checkpoint", "train", "predict", "score", "record", "reproduce", "board",
    "episodes", "data", "plugin", "list", "show", "cite", "doctor",
)  # fmt: skip


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_VERBS, *_plugin_commands()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _VERBS:
            name = "listing" if cmd_name == "list" else cmd_name
            command = getattr(importlib.import_module(f"fssbench.cli.{name}"), name)
        else:
            command = _plugin_commands().get(cmd_name)
        return command and _with_plugin_option(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            verbs = self.list_commands(ctx)
            raise click.UsageError(
                f"no verb is called {args[0]!r}; {near(args[0], verbs)}verbs: {', '.join(verbs)}"
            )
        return super().resolve_command(ctx, args)


def _plugin_commands() -> dict[str, click.Command]:
    from fssbench import registry

    plugins = registry.registry().plugins
    commands: dict[str, click.Command] = {}
    for implementation in plugins.hook.fssbench_commands.get_hookimpls():
        try:
            found: list[click.Command] = list(implementation.function())  # type: ignore[call-overload]
        except Exception as error:  # an error of a plugin must not disable other commands
            reason = f"fssbench_commands: {one_line(error)}"
            plugins.mark_broken(implementation.plugin_name, reason)
        else:
            commands |= {command.name or "": command for command in found}
    return commands


def _with_plugin_option(command: click.Command) -> click.Command:
    """Add ``-p`` to the help of a command; `_split_plugins` removes it from the arguments."""
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _with_plugin_option(each)
    elif not any("-p" in parameter.opts for parameter in command.params):
        option = click.Option(
            ["-p", "--plugin"], multiple=True, expose_value=False, metavar="PLUGIN",
            help="Load a plugin: a module, or a .py file.",
        )  # fmt: skip
        command.params.append(option)
    return command


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fssbench.__version__, "-V", "--version", prog_name="fssbench")
@click.option("-v", "--verbose", is_flag=True, help="Log progress messages.")
def cli(verbose: bool) -> None:
    """Benchmark few-shot semantic segmentation.

    Every verb takes -p MODULE or -p FILE.py (repeatable) to load a plugin that is not installed;
    the environment variable FSSBENCH_PLUGINS does the same.
    """
    if verbose:
        logging.getLogger().setLevel(logging.INFO)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the code of docs/cli.md."""
    # Waiting threads of torch must sleep: on shared cores, spinning makes small models ten times
    # slower. torch reads the variable when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch warns with a C++ traceback of each attempt to connect to another process.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    for stream in (sys.stdout, sys.stderr):  # an encoding such as cp1252 lacks some characters
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    logging.basicConfig(
        level=logging.WARNING, format="fssbench: %(levelname)s: %(message)s", stream=sys.stderr
    )
    termination.install()
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    try:
        arguments, plugins = _split_plugins(arguments)
        if plugins:
            from fssbench import registry

            registry.use_plugins(plugins)
        result = cli.main(arguments, prog_name="fssbench", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except FssbenchError as error:
        return _fail(str(error))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else _command_path(arguments)
        return _fail(f"{error.format_message()} (see {path} --help)")
    except click.ClickException as error:
        return _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort) as error:  # click raises Abort from the former
        return termination.report(error.__cause__ or error)
    except BrokenPipeError:
        # The pipe was closed (`fssbench list | head`); avoid an error at interpreter exit as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        if not _from_torchvision(error):
            raise
        return _fail(
            f"torchvision cannot be imported ({one_line(error)}); it must be built for the "
            "installed torch: see fssbench doctor"
        )


def _from_torchvision(error: Exception) -> bool:
    """Return True for an error of the import of torchvision, such as beside another torch."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [f.f_globals.get("__name__") for f in frames if f.f_code.co_name == "<module>"]
    if isinstance(error, ModuleNotFoundError):
        modules.append(error.name)
    return any(str(name).partition(".")[0] == "torchvision" for name in modules)


def _command_path(arguments: Sequence[str]) -> str:
    """Return the command that arguments name, for errors of the parser, which has no context."""
    command: click.Command | None = cli
    names = ["fssbench"]
    for name in arguments:
        if not isinstance(command, click.Group):
            break
        command = command.get_command(click.Context(command), name)
        names += [name] if command else []
    return " ".join(names)


def _fail(message: str) -> int:
    print(f"fssbench: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _split_plugins(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Remove ``-p NAME`` from the arguments first, because a plugin may define the subcommand."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-p", "--plugin", action="append", default=[])
    try:
        known, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise click.UsageError("-p needs the name of a module or a .py file") from error
    return rest, known.plugin
