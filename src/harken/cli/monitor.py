"""harken monitor: listen to machines for years; ask and answer the monitor that does."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from harken.cli import monitor_asked, monitor_install, monitor_run, monitor_teach


class RunsByDefault(TyperGroup):
    """A group in which words that begin with no verb are those of the verb `run`: `harken monitor FOLDER -m MODEL`.

    A folder that is called like a verb is `./status`.
    """

    default = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """With the verb in front."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunsByDefault,
    help="Listen to machines without an end: few alarms, which can be trusted.\n\n"
    "harken monitor FOLDER -m MODEL is short for harken monitor run FOLDER -m MODEL.",
    no_args_is_help=True,
)
app.command("run")(monitor_run.run)
app.command("status")(monitor_asked.status)
app.command("alarms")(monitor_asked.alarms)
app.command("ack")(monitor_asked.ack)
app.command("normal")(monitor_teach.normal)
app.command("fault")(monitor_teach.fault)
app.command("rebaseline")(monitor_teach.rebaseline)
app.command("rollback")(monitor_teach.rollback)
app.command("versions")(monitor_teach.versions)
app.command("shelve")(monitor_asked.shelve)
app.command("unshelve")(monitor_asked.unshelve)
app.command("out-of-service")(monitor_asked.out_of_service)
app.command("in-service")(monitor_asked.in_service)
app.command("install")(monitor_install.install)
