"""The command `snapcount`. Modules of the commands import what they need when they run, so that `--help` answers at once."""

import os
import sys

import typer

from host.core.errors import HostFault, SnapcountError
from sdk.cli import ceremony, demo, fleet, job, keys, machine, mesh, node, registry, rollout, skill, trust

app = typer.Typer(
    name="snapcount",
    help="A WebAssembly skill host for fleets: write a skill, sign it, push it, and every node runs it in a sandbox.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(skill.app, name="skill")
app.add_typer(keys.app, name="keys")
app.add_typer(node.app, name="node")
app.add_typer(registry.app, name="registry")
app.add_typer(fleet.app, name="fleet")
app.add_typer(rollout.app, name="rollout")
app.add_typer(mesh.app, name="mesh")
app.add_typer(job.app, name="job")
app.add_typer(machine.app, name="machine")
app.add_typer(trust.app, name="trust")
ceremony.add_to_keys(keys.app)
trust.add_to_node(node.app)
app.command(name="demo", epilog=demo.EXAMPLE)(demo.demo)

EXIT_INTERRUPTED = 130
EXIT_PIPE = 141


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"snapcount {version('snapcount')}")
        raise typer.Exit


@app.callback()
def root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit.")) -> None:
    """Exit codes: 0 done, 2 usage, 10 a skill misbehaved, 20 input refused, 30 policy refused, 40 this node, 50 network."""


def main() -> None:
    """Runs a command. An error is one line on stderr, and its exit code says of which kind it was."""
    try:
        app()
    except SnapcountError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader has gone; keep Python from complaining about it once more at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_PIPE)
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(HostFault.exit_code)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
