"""How `tapewatch --help` reads: commands in groups, each in one line, with examples behind its options.

A command that no group names stands under "More", so none is ever missing. Every example is parsed in a test.
"""

from typing import Any, Final

import click

from stream.suggestions import did_you_mean

GROUPS: Final[dict[str, dict[str, str]]] = {
    "First look": {
        "demo": "See it work, all in one, with a live board.",
        "backtest": "Run a file through the pipeline, without Kafka, into Parquet.",
        "broker": "Run a small Kafka broker to try things on.",
    },
    "Bring ticks": {
        "feed": "Put an exchange's trades on Kafka as they come.",
        "replay": "Put a file of ticks on Kafka, in its time or faster.",
        "download": "Fetch days of trades from an exchange's public archive.",
        "simulate": "Make ticks of a market with a scenario in it.",
    },
    "Run": {
        "topics": "Make the topics on Kafka.",
        "worker": "Answer every tick: the stream processor.",
        "halt": "Stop the agent's actions.",
        "resume": "Let the agent act again.",
        "doctor": "Look whether all is well, and say what to do where it is not.",
    },
    "Read and check": {
        "tail": "Print a topic readably as records come.",
        "rejected": "List what was refused, and put it back after a repair.",
        "verify": "Compute ticks afresh and compare what was published.",
        "audit": "Show who halted and resumed the agent, and what is halted.",
    },
    "Models": {
        "models": "List, check, choose and sign model bundles.",
        "train": "Train models on your ticks (needs `make setup-dev`).",
        "evaluate": "Hold a forecaster against baselines (needs `make setup-dev`).",
    },
    "This program": {
        "config": "Print the settings in force.",
        "bench": "Measure throughput and latency on this machine.",
        "compile": "Compile the kernels now, so that no start waits for it.",
        "completion": "Print what makes your shell complete commands.",
    },
}
"""Groups in the order of `tapewatch --help`, with each command's line."""

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "": (
        "tapewatch demo --seconds 30",
        "tapewatch --config tapewatch.toml worker",
        "TAPEWATCH_WORKER__PORT=6067 tapewatch worker",
    ),
    "worker": (
        "tapewatch worker --broker kafka-1:9092",
        "tapewatch worker --broker kafka-1:9092 --port 0   # a second one beside it",
    ),
    "broker": ("tapewatch broker", "tapewatch broker --kafka"),
    "topics create": ("tapewatch topics create --broker kafka-1:9092",),
    "replay": (
        "tapewatch replay --speed 10 --loop   # the recorded trades of the demo",
        "tapewatch replay ticks.parquet --speed max",
        "tapewatch replay ticks.csv --rate 5000 --symbol BTCUSDT",
    ),
    "download": ("tapewatch download binance BTCUSDT 2025-01-31 --to 2025-02-02 --market usdm --out ticks",),
    "feed": ("tapewatch feed binance BTCUSDT ETHUSDT --port 6070", "tapewatch feed kraken BTC/USD"),
    "simulate": (
        "tapewatch simulate --scenario list",
        "tapewatch simulate --scenario flash-crash --out crash.parquet",
        "tapewatch simulate --scenario pump --broker kafka-1:9092 --speed 20",
    ),
    "tail": (
        "tapewatch tail risk --symbol BTCUSDT",
        "tapewatch tail alerts --from beginning --count 20 --json",
    ),
    "demo": (
        "tapewatch demo --seconds 30 --summary summary.json",
        "tapewatch demo --scenario flash-crash",
        "tapewatch demo --broker kafka",
    ),
    "backtest": ("tapewatch backtest ticks.parquet --out backtest",),
    "verify": (
        "tapewatch verify --broker kafka-1:9092",
        "tapewatch verify --from 0:1000,1:500 --to 0:2000,1:900 --json",
    ),
    "rejected show": ("tapewatch rejected show --count 5",),
    "rejected retry": (
        "tapewatch rejected retry --reason too_many_symbols",
        "tapewatch rejected retry --offset 0:1234 --offset 1:77 --yes",
    ),
    "halt": (
        'tapewatch halt --reason "the feed is wrong"',
        'tapewatch halt --reason "split tomorrow" --symbol ACME --yes',
    ),
    "resume": ('tapewatch resume --reason "the feed is right again"',),
    "audit": ("tapewatch audit", "tapewatch audit --json"),
    "doctor": ("tapewatch doctor --broker kafka-1:9092",),
    "config": ("tapewatch config", "tapewatch --config tapewatch.toml config"),
    "bench": (
        "tapewatch bench   # all parts: some half an hour",
        "tapewatch bench latency burst --runs 3 --json found.json",
        "tapewatch bench drain --ticks 1000000 --docs",
    ),
    "completion": (
        "source <(tapewatch completion bash)   # for this shell; in ~/.bashrc for all",
        "tapewatch completion zsh > ~/.tapewatch.zsh   # and source that in ~/.zshrc",
        "tapewatch completion fish > ~/.config/fish/completions/tapewatch.fish",
    ),
    "train": (
        "tapewatch train all ticks/ --out models-of-ours",
        "tapewatch train forecaster --kind lstm ticks/ --out models-of-ours --quick",
    ),
    "evaluate": ("tapewatch evaluate models-of-ours ticks/ --out report",),
    "models list": ("tapewatch models list --models models-of-ours",),
    "models show": ("tapewatch models show gru", "tapewatch models show gru@3"),
    "models keygen": ("tapewatch models keygen desk.key",),
    "models sign": (
        "tapewatch models sign gru@4 --key desk.key --models models-of-ours",
        "tapewatch models sign roles.toml --key desk.key",
    ),
    "models promote": ("tapewatch models promote", "tapewatch models promote gru@3 --key desk.key"),
    "models challenge": ("tapewatch models challenge lstm", "tapewatch models challenge --none"),
    "models verify": ("tapewatch models verify --models models-of-ours", "tapewatch models verify --key desk.key.pub"),
}
"""Examples of each command by its name; "" is `tapewatch` itself."""


def show(error: click.ClickException) -> None:
    """Write a mistake of usage to stderr as one line, as any other mistake; where a command is missing, the help."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return
    message = " ".join(error.format_message().split()).removesuffix(".")
    if message[1:2].islower():  # a sentence of click's; not METAVAR or --option
        message = message[0].lower() + message[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    where = "" if context is None or "--help`" in message else f"; see `{context.command_path} --help`"
    click.echo(f"tapewatch: {message}{where}", err=True)


def examples_of(command_path: str) -> tuple[str, ...]:
    """Examples of a command by its whole name, `tapewatch` first."""
    return EXAMPLES.get(command_path.partition(" ")[2], ())


def _misplaced(error: click.NoSuchOption, ctx: click.Context) -> str | None:
    """What to say of an option that is right at another place: those of `tapewatch` itself go before the command."""
    name, root = error.option_name, ctx.find_root()
    before = next((each for each in root.command.params if name in each.opts), None)
    if before is not None and ctx is not root:
        value = "" if isinstance(before, click.Option) and before.is_flag else f" {before.make_metavar(root)}"
        command = ctx.command_path.removeprefix(root.command_path)
        return f"option {name} goes before the command: `{root.command_path} {name}{value}{command} ...`"
    below = ctx.command.commands if isinstance(ctx.command, click.Group) else {}
    behind = next((path for path, command in below.items() if any(name in each.opts for each in command.params)), None)
    if behind is not None:
        return f"option {name} goes behind the command: `{ctx.command_path} {behind} {name} ...`"
    return None


class _Placed(click.Command):
    """A command that answers an option at the wrong place with the right one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if message := _misplaced(error, ctx):
                ctx.fail(message)
            raise


class Command(_Placed):
    """A command whose help ends with its examples."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        _write_examples(ctx, formatter)


class Group(_Placed, click.Group):
    """A group of commands, told in groups and in whole lines; a mistyped name is answered with the likely one."""

    command_class = Command
    group_class = type  # of the groups below too

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands: those of GROUPS under their headings, the rest in one list."""
        named = GROUPS if ctx.parent is None else {}
        rest = [name for name in self.list_commands(ctx) if not any(name in group for group in named.values())]
        for heading, lines in named.items():
            _write_list(formatter, heading, {name: line for name, line in lines.items() if name in self.commands})
        lines = {name: self.commands[name].get_short_help_str(limit=100) for name in rest}
        _write_list(formatter, "More" if named else "Commands", lines)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        _write_examples(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            meant = did_you_mean(name, self.list_commands(ctx))
            ctx.fail(f"no command {name!r}: {meant}`{ctx.command_path} --help` lists all")
        return super().resolve_command(ctx, args)


def _write_list(formatter: click.HelpFormatter, heading: str, lines: dict[str, str]) -> None:
    if lines:
        with formatter.section(heading):
            formatter.write_dl(list(lines.items()), col_max=12)


def _write_examples(ctx: Any, formatter: click.HelpFormatter) -> None:
    examples = examples_of(ctx.command_path)
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
