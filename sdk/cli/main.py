"""The command `snapcount`. Modules of the commands import what they need when they run, so that `--help` answers at once."""

import typer

from host.console.ending import ended
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


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"snapcount {version('snapcount')}")
        raise typer.Exit


@app.callback()
def root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit.")) -> None:
    """Exit codes: 0 done, 2 usage, 10 a skill misbehaved, 20 input refused, 30 policy refused, 40 this node, 50 network."""


def main() -> None:
    """Runs a command."""
    ended(app)


if __name__ == "__main__":
    main()
