"""The four dashboards: Market risk, Symbol, Models, Operations."""

from typing import Final

from grafana.panels import (
    GREEN,
    LEVELS,
    ORANGE,
    POSITIONS,
    RED,
    YELLOW,
    ZONES,
    Board,
    Note,
    Panel,
    Query,
)
from stream.config import Risk

INSTRUMENT: Final = ("symbol", "venue")
NAMED: Final = "{{symbol}} {{venue}}"
RULES: Final = Risk()
SCORE_COLOURS: Final = (
    (None, GREEN),
    (RULES.elevated, YELLOW),
    (RULES.high, ORANGE),
    (RULES.critical, RED),
)
# Log returns over a minute, and the recorded sample has moves of a few per cent.
LARGEST_RETURN: Final = 0.5


def each(metric: str) -> str:
    """The newest value for each instrument, whichever worker has it."""
    return f"max by (symbol, venue) (tapewatch_{metric})"


def of_symbol(metric: str) -> str:
    """The same, of the instrument that is chosen."""
    return f'max by (symbol, venue) (tapewatch_{metric}{{symbol="$symbol", venue="$venue"}})'


def quantile(level: float, offset: str = "") -> str:
    """A quantile of the return forecast for the chosen instrument."""
    labels = f'symbol="$symbol", venue="$venue", quantile="{level}"'
    return f"max by (symbol, venue) (tapewatch_return_quantile{{{labels}}}{offset})"


PRICE: Final = of_symbol("price")
FAN: Final = {0.99: "99 %", 0.95: "95 %", 0.5: "median", 0.05: "5 %", 0.01: "1 %"}

MARKET_RISK: Final = Board(
    "tapewatch-market-risk",
    "Market risk",
    "Which instruments are at risk, why, and whether the VaR holds. Shows the watch-list.",
    (
        Panel(
            "Level",
            "Instruments on the watch-list at each level. A level is reached at its border of the score and left two "
            "or more points below it (risk.hysteresis).",
            "none",
            tuple(
                Query(f"count({each('level')} == {number}) or vector(0)", name, low=0, high=1000)
                for number, (name, _) in LEVELS.items()
            ),
            kind="bargauge",
            width=6,
            alerts=("TapewatchLevelCritical",),
        ),
        Panel(
            "Alerts of Prometheus that fire",
            "Alerts for desk and operator that fire now, by name. The alerts of single instruments are beside it.",
            "none",
            (
                Query(
                    'count by (alertname) (ALERTS{alertstate="firing"}) or label_replace(vector(0), "alertname", '
                    '"none", "", "")',
                    "{{alertname}}",
                    by=("alertname",),
                    high=100,
                ),
            ),
            kind="bargauge",
            width=6,
            thresholds=((None, GREEN), (1, RED)),
            alerts=("TapewatchLevelCritical", "TapewatchVarRed", "TapewatchFeedStale"),
        ),
        Panel(
            "Open alerts by kind",
            "Alerts of instruments that are open now, all instruments, not only the watch-list. `tapewatch tail "
            "alerts` names the instrument and the features that drove it.",
            "none",
            (Query("sum by (kind) (tapewatch_alerts_open)", "{{kind}}", by=("kind",), high=100_000),),
            kind="bargauge",
            width=6,
            thresholds=((None, GREEN), (1, ORANGE)),
            alerts=("TapewatchFeedFault",),
        ),
        Panel(
            "Alerts opened, last hour",
            "How many alerts have opened within an hour, by kind.",
            "none",
            (Query("sum by (kind) (increase(tapewatch_alerts_opened_total[1h]))", "{{kind}}", by=("kind",), high=1e6),),
            kind="bargauge",
            width=6,
            decimals=0,
        ),
        Panel(
            "Score over time",
            "Risk score, 0 to 100, of each watched instrument; the colours are the borders of the levels.",
            "none",
            (Query(each("score"), NAMED, INSTRUMENT, 0, 100),),
            kind="status-history",
            width=16,
            height=9,
            thresholds=SCORE_COLOURS,
            alerts=("TapewatchLevelCritical",),
        ),
        Panel(
            "Watch-list by score",
            "The riskiest first. An instrument that is not here is not on the watch-list (worker.watch, "
            "worker.watch_limit): `tapewatch tail risk --symbol SYMBOL` has its score.",
            "none",
            (Query(f"sort_desc({each('score')})", NAMED, INSTRUMENT, 0, 100),),
            kind="table",
            height=9,
            thresholds=SCORE_COLOURS,
            decimals=1,
        ),
        Panel(
            "Level over time",
            "Level of each watched instrument. While it warms up it is normal.",
            "none",
            (Query(each("level"), NAMED, INSTRUMENT, 0, 3),),
            kind="state-timeline",
            width=12,
            thresholds=((None, GREEN), (1, YELLOW), (2, ORANGE), (3, RED)),
            mappings=LEVELS,
            alerts=("TapewatchLevelCritical",),
        ),
        Panel(
            "Volatility against its baseline",
            "Forecast volatility over 60 s over the instrument's own average over 1800 s. 1 is usual; an alert of the "
            "kind volatility opens at 4 of the realized one (alerts.volatility).",
            "none",
            (Query(each("volatility_ratio"), NAMED, INSTRUMENT, 0, 1e6),),
            width=12,
            thresholds=((None, GREEN), (2, YELLOW), (4, RED)),
            alerts=("TapewatchForecastDrift",),
        ),
        Panel(
            "VaR 99 %",
            "Loss over 60 s of one unit held long that is not exceeded with 99 %, as forecast. Positive is a loss.",
            "percentunit",
            (Query(each("var_99"), NAMED, INSTRUMENT, 0, LARGEST_RETURN),),
            decimals=3,
            alerts=("TapewatchVarRed",),
        ),
        Panel(
            "VaR exceptions",
            "Of the last 250 tests, each over 60 s that no other shares, those that lost more than the VaR. A right "
            "VaR has two or three of 250.",
            "none",
            (Query(each("var_window_exceptions"), NAMED, INSTRUMENT, 0, 250),),
            thresholds=((None, GREEN), (5, YELLOW), (10, RED)),
            decimals=0,
            alerts=("TapewatchVarRed",),
        ),
        Panel(
            "Traffic light of the VaR",
            "Basel's zones. With fewer than 250 tests the borders have the same probability under a right VaR as 5 "
            "and 10 of 250; with a handful of tests one exception is yellow. A worker that starts begins at green.",
            "none",
            (Query(each("var_zone"), NAMED, INSTRUMENT, 0, 2),),
            kind="state-timeline",
            thresholds=((None, GREEN), (1, YELLOW), (2, RED)),
            mappings=ZONES,
            alerts=("TapewatchVarRed",),
        ),
        Panel(
            "Anomaly",
            "Of the newest tick: 0.99 is exceeded by 1 % of normal ticks. An alert opens when the mean of about 32 "
            "ticks reaches 0.95 (alerts.anomaly).",
            "percentunit",
            (Query(each("anomaly"), NAMED, INSTRUMENT, 0, 1),),
            thresholds=((None, GREEN), (0.95, ORANGE), (0.99, RED)),
            alerts=("TapewatchInputDrift",),
        ),
        Panel(
            "Flow",
            "How one-sided the trading of the last 10 s is, times how unusual its volume; 0 to 1.",
            "percentunit",
            (Query(each("flow"), NAMED, INSTRUMENT, 0, 1),),
            thresholds=((None, GREEN), (0.5, YELLOW), (0.8, RED)),
        ),
        Panel(
            "Liquidity",
            "How much more a trade of usual size moves the price than it usually does; 1 is eight times as much.",
            "percentunit",
            (Query(each("liquidity"), NAMED, INSTRUMENT, 0, 1),),
            thresholds=((None, GREEN), (0.5, YELLOW), (0.8, RED)),
        ),
    ),
    annotations='ALERTS{alertstate="firing", team="desk"}',
)

SYMBOL: Final = Board(
    "tapewatch-symbol",
    "Symbol",
    "One instrument of the watch-list: price and forecast, risk and its components, the agent.",
    (
        Panel(
            "Price and the next 60 s",
            "Price of the newest tick, and where the forecast of that tick sees it 60 s later: the band from 1 % to "
            "99 %, and within it from 5 % to 95 %.",
            "none",
            (
                Query(PRICE, "price", INSTRUMENT, 1e-12),
                *(Query(f"{PRICE} * exp({quantile(level)})", name, INSTRUMENT, 1e-12) for level, name in FAN.items()),
            ),
            width=16,
            height=10,
            fill_below={"99 %": "1 %", "95 %": "5 %"},
        ),
        Panel(
            "Score",
            "0 to 100; the lines are the borders of the levels.",
            "none",
            (Query(of_symbol("score"), "score", INSTRUMENT, 0, 100),),
            height=5,
            thresholds=SCORE_COLOURS,
            decimals=0,
            alerts=("TapewatchLevelCritical",),
        ),
        Panel(
            "Level",
            "Level now. Normal while the instrument warms up.",
            "none",
            (Query(of_symbol("level"), "level", INSTRUMENT, 0, 3),),
            kind="stat",
            width=4,
            height=5,
            thresholds=((None, GREEN), (1, YELLOW), (2, ORANGE), (3, RED)),
            mappings=LEVELS,
            alerts=("TapewatchLevelCritical",),
        ),
        Panel(
            "VaR light",
            "Basel's zone of the last 250 tests of the VaR.",
            "none",
            (Query(of_symbol("var_zone"), "zone", INSTRUMENT, 0, 2),),
            kind="stat",
            width=4,
            height=5,
            thresholds=((None, GREEN), (1, YELLOW), (2, RED)),
            mappings=ZONES,
            alerts=("TapewatchVarRed",),
        ),
        Panel(
            "Realized against forecast",
            "The return of the last minute, and what was forecast for it a minute ago. By the clock on the wall: on a "
            "replay that runs faster than recorded, or after a pause, the two do not belong together; the tests of "
            "the dashboard Models go by event time.",
            "percentunit",
            (
                Query(
                    f"ln({PRICE} / ({PRICE.replace('})', '} offset 1m)')}))",
                    "realized",
                    INSTRUMENT,
                    -LARGEST_RETURN,
                    LARGEST_RETURN,
                    after_seconds=60,
                ),
                *(
                    Query(
                        quantile(level, " offset 1m"),
                        name,
                        INSTRUMENT,
                        -LARGEST_RETURN,
                        LARGEST_RETURN,
                        after_seconds=60,
                    )
                    for level, name in FAN.items()
                ),
            ),
            width=12,
            decimals=3,
            fill_below={"99 %": "1 %", "95 %": "5 %"},
            alerts=("TapewatchForecastDrift",),
        ),
        Panel(
            "Volatility over 60 s",
            "Forecast by the model, and usual: the instrument's own average over 1800 s.",
            "percentunit",
            (
                Query(of_symbol("volatility"), "forecast", INSTRUMENT, 0, LARGEST_RETURN),
                Query(
                    f"{of_symbol('volatility')} / {of_symbol('volatility_ratio')}",
                    "usual",
                    INSTRUMENT,
                    0,
                    LARGEST_RETURN,
                ),
            ),
            width=12,
            decimals=4,
            alerts=("TapewatchForecastDrift",),
        ),
        Panel(
            "Tail",
            "VaR 99 % and expected shortfall 97.5 % over 60 s; positive is a loss. Above risk.es_limit the agent must "
            "be flat.",
            "percentunit",
            (
                Query(of_symbol("var_99"), "VaR 99 %", INSTRUMENT, 0, LARGEST_RETURN),
                Query(of_symbol("es_975"), "ES 97.5 %", INSTRUMENT, 0, LARGEST_RETURN),
            ),
            thresholds=((None, GREEN), (RULES.es_limit, RED)),
            decimals=3,
            alerts=("TapewatchVarRed",),
        ),
        Panel(
            "Components of the score",
            "Anomaly, flow and liquidity, 0 to 1. Volatility and tail stand on their own panels.",
            "percentunit",
            tuple(Query(of_symbol(name), name, INSTRUMENT, 0, 1) for name in ("anomaly", "flow", "liquidity")),
            thresholds=((None, GREEN), (0.95, RED)),
        ),
        Panel(
            "VaR tests",
            "Tests in the traffic light's window, at most 250, and how many were exceptions.",
            "none",
            (
                Query(of_symbol("var_window_tests"), "tests", INSTRUMENT, 0, 250),
                Query(of_symbol("var_window_exceptions"), "exceptions", INSTRUMENT, 0, 250),
            ),
            decimals=0,
            alerts=("TapewatchVarRed",),
        ),
        Panel(
            "Direction",
            "Probability that the return over 60 s is above 0.",
            "percentunit",
            (Query(of_symbol("probability_up"), "up", INSTRUMENT, 0, 1),),
        ),
        Panel(
            "Position of the agent",
            "What the agent wants to hold, after the risk rules; units of the notional limit.",
            "none",
            (Query(of_symbol("target_position"), "position", INSTRUMENT, -1, 1),),
            kind="state-timeline",
            thresholds=((None, RED), (-0.5, "blue"), (0.5, GREEN)),
            mappings=POSITIONS,
        ),
        Panel(
            "Expected",
            "Return over 60 s that the forecaster expects, and the reward, after costs, that the agent expects of its "
            "action. Log returns.",
            "percentunit",
            (
                Query(of_symbol("expected_return"), "return", INSTRUMENT, -LARGEST_RETURN, LARGEST_RETURN),
                Query(of_symbol("expected_reward"), "reward", INSTRUMENT, -LARGEST_RETURN, LARGEST_RETURN),
            ),
            decimals=4,
        ),
        Note(
            "What is not here",
            "Each tick's own answers are on the topics: `tapewatch tail predictions --symbol $symbol`, `risk`, "
            "`actions`, `alerts`. Prometheus keeps a sample every few seconds, of the watch-list alone. A symbol that "
            "the list above does not offer is not on it: name it in `worker.watch`. Horizons of 10 s, action values "
            "and the reasons of alerts are on the topics only.",
        ),
    ),
    symbol=True,
)

MODELS: Final = Board(
    "tapewatch-models",
    "Models",
    "Whether the models are right: held against what followed, over the watch-list.",
    (
        Panel(
            "Served",
            "The model, name@version, that serves each head, and on how many workers; the challenger serves none and "
            "is scored beside the forecaster. Two versions of a head at once: a swap is under way, partition by "
            "partition, or the workers' folders differ.",
            "none",
            (Query("count by (head, model) (tapewatch_model_info)", "{{head}}: {{model}}", ("head", "model"), 1),),
            kind="table",
            width=6,
            alerts=("TapewatchSwapRefused",),
        ),
        Panel(
            "Swaps",
            "Partitions in which a new model took over within the last hour, by head, and bundles in the folders of "
            "models that the workers refuse: those should be none.",
            "none",
            (
                Query("sum by (head) (increase(tapewatch_model_swaps_total[1h]))", "{{head}}", ("head",), 0, 1e6),
                Query("max(tapewatch_models_refused)", "refused", low=0, high=1000),
            ),
            kind="stat",
            width=6,
            decimals=0,
            alerts=("TapewatchSwapRefused",),
        ),
        Panel(
            "Tests, last hour",
            "Forecasts of watched instruments held against the 60 s that followed; tests of one instrument share no "
            "horizon. Below a hundred the panels beside say little.",
            "none",
            (Query("max(tapewatch:forecast_tests:increase1h)", "tests", low=1, high=1e6),),
            kind="stat",
            width=6,
            decimals=0,
            thresholds=((None, YELLOW), (100, GREEN)),
            alerts=("TapewatchForecastDrift",),
        ),
        Panel(
            "QLIKE",
            "Loss of the variance forecast, mean of the last hour: of the model and of the usual variance, the "
            "instrument's own average over 1800 s. Lower is better; the model should be below.",
            "none",
            (Query("max by (forecast) (tapewatch:qlike:mean1h)", "{{forecast}}", ("forecast",), 0, 1000),),
            width=12,
            decimals=3,
            alerts=("TapewatchForecastDrift",),
        ),
        Panel(
            "Coverage",
            "Share of returns below each forecast quantile, last hour. Right is the quantile's own number: of a right "
            "5 % quantile, 5 %.",
            "percentunit",
            (Query("max by (quantile) (tapewatch:forecast_below:ratio1h)", "{{quantile}}", ("quantile",), 0, 1),),
            width=12,
            alerts=("TapewatchForecastDrift", "TapewatchVarRed"),
        ),
        Panel(
            "Exceptions of the VaR",
            "Share of tests whose loss was larger than the VaR 99 %, last hour, all watched instruments. Right is 1 %.",
            "percentunit",
            (Query("max(tapewatch:var_exceptions:ratio1h)", "exceptions", low=0, high=1),),
            width=12,
            decimals=2,
            thresholds=((None, GREEN), (0.02, YELLOW), (0.04, RED)),
            alerts=("TapewatchVarRed",),
        ),
        Panel(
            "Champion and challenger: QLIKE",
            "Loss of the variance forecast, mean of the last hour, of both on the same tests; lower is better. Empty "
            "where no challenger runs. Its tests begin later than the champion's own, once it has warmed up.",
            "none",
            (
                Query(
                    "max by (role) (tapewatch:challenger_qlike:mean1h)", "{{role}}", ("role",), 0, 1000, undefined=True
                ),
            ),
            width=8,
            decimals=3,
            alerts=("TapewatchForecastDrift",),
        ),
        Panel(
            "Champion and challenger: exceptions",
            "Share of these tests whose loss was larger than the VaR 99 %, last hour. Right is 1 %; less of it is no "
            "better, and few tests tell little.",
            "percentunit",
            (
                Query(
                    "max by (role) (tapewatch:challenger_var_exceptions:ratio1h)",
                    "{{role}}",
                    ("role",),
                    0,
                    1,
                    undefined=True,
                ),
            ),
            width=8,
            decimals=2,
            alerts=("TapewatchVarRed",),
        ),
        Panel(
            "Champion and challenger: tests",
            "Tests of both within the last hour, over the watch-list. Below a hundred the panels beside say little; "
            "0: no challenger.",
            "none",
            (Query("sum(increase(tapewatch_challenger_tests_total[1h]))", "tests", low=0, high=1e6),),
            kind="stat",
            width=8,
            decimals=0,
        ),
        Panel(
            "Anomaly",
            "Drift of the inputs, as the critic sees it, over 15 minutes: mean (right is 0.5) and the shares of ticks "
            "above 0.9 (right is 10 %) and 0.99 (1 %). All answered ticks, not only the watch-list.",
            "percentunit",
            (
                Query("max(tapewatch:anomaly:mean15m)", "mean", low=0, high=1),
                Query("max(tapewatch:anomaly_above_90:ratio15m)", "above 0.9", low=0, high=1),
                Query("max(tapewatch:anomaly_above_99:ratio15m)", "above 0.99", low=0, high=1),
            ),
            thresholds=((None, GREEN), (0.5, ORANGE)),
            alerts=("TapewatchInputDrift",),
        ),
        Panel(
            "Drift of the features",
            "Population stability index of each feature: the answered ticks of the last 15 minutes against the "
            "training file that is most like them. 0 is alike. Slow features of one market always stand out; it is the "
            "median that counts.",
            "none",
            (
                Query("quantile(0.5, tapewatch_feature_stability_index)", "median", low=0, high=100),
                Query(
                    "topk(5, max by (feature) (tapewatch_feature_stability_index))", "{{feature}}", ("feature",), 0, 100
                ),
            ),
            decimals=2,
            thresholds=((None, GREEN), (2, ORANGE)),
            alerts=("TapewatchFeatureDrift",),
        ),
        Panel(
            "Inference time",
            "Time of the three models for one chunk: median, and what 1 % of the chunks exceed.",
            "s",
            (
                Query("max(tapewatch:inference_seconds:p50_1m)", "p50", low=0, high=1, undefined=True),
                Query("max(tapewatch:inference_seconds:p99_1m)", "p99", low=0, high=1, undefined=True),
            ),
            thresholds=((None, GREEN), (0.01, YELLOW), (0.1, RED)),
            alerts=("TapewatchLatency",),
        ),
        Panel(
            "Actions",
            "What the agent does, after the risk rules: share of ticks.",
            "percentunit",
            (
                Query(
                    "sum by (action) (rate(tapewatch_actions_total[5m])) / on () group_left () "
                    "sum(rate(tapewatch_actions_total[5m]))",
                    "{{action}}",
                    ("action",),
                    0,
                    1,
                    undefined=True,
                ),
            ),
        ),
        Panel(
            "Overridden",
            "Share of ticks on which a risk rule made the agent flat, by rule; halted: people did.",
            "percentunit",
            (
                Query(
                    "sum by (rule) (rate(tapewatch_actions_gated_total[5m])) / on () group_left () "
                    "sum(rate(tapewatch_actions_total[5m]))",
                    "{{rule}}",
                    ("rule",),
                    0,
                    1,
                    undefined=True,
                ),
            ),
            width=12,
            alerts=("TapewatchActionsHalted",),
        ),
        Panel(
            "Anomaly of ticks",
            "How the anomaly of the last 15 minutes' ticks is spread: ticks up to each border. Right is a straight "
            "line.",
            "percentunit",
            (
                Query(
                    "sort(sum by (le) (rate(tapewatch_tick_anomaly_bucket[15m])) / on () group_left () "
                    "sum(rate(tapewatch_tick_anomaly_count[15m])))",
                    "{{le}}",
                    ("le",),
                    0,
                    1,
                    undefined=True,
                ),
            ),
            kind="bargauge",
            width=12,
            alerts=("TapewatchInputDrift",),
        ),
        Note(
            "What is not here",
            "Only a forecaster can have a challenger; critic and policy have none. What training measured is in each "
            "bundle's `card.json`, and how forecasters do on recorded ticks is what `tapewatch evaluate` tells.",
        ),
    ),
    annotations='ALERTS{alertstate="firing", alertname=~"Tapewatch(FeatureDrift|ForecastDrift|InputDrift|VarRed)"}',
)

OPERATIONS: Final = Board(
    "tapewatch-operations",
    "Operations",
    "Whether the workers keep up, answer everything, and commit.",
    (
        Panel(
            "Workers",
            "Workers that answer Prometheus.",
            "none",
            (Query('sum(up{job="tapewatch"})', "up", low=1, high=1000),),
            kind="stat",
            width=4,
            height=5,
            thresholds=((None, RED), (1, GREEN)),
            alerts=("TapewatchWorkerDown",),
        ),
        Panel(
            "Restarts, last hour",
            "How often workers have started again.",
            "none",
            (Query("sum(changes(tapewatch_start_time_seconds[1h]))", "restarts", low=0, high=100),),
            kind="stat",
            width=4,
            height=5,
            thresholds=((None, GREEN), (1, YELLOW), (3, RED)),
            alerts=("TapewatchRestarts",),
        ),
        Panel(
            "Running for",
            "Time since the start of the youngest worker.",
            "s",
            (Query("min(time() - tapewatch_start_time_seconds)", "running", low=0, high=1e9),),
            kind="stat",
            width=4,
            height=5,
            alerts=("TapewatchRestarts",),
        ),
        Panel(
            "Versions",
            "Versions of Tapewatch and Python, and on how many workers.",
            "none",
            (Query("count by (version, python) (tapewatch_build_info)", "{{version}}", ("version", "python"), 1),),
            kind="table",
            width=6,
            height=5,
        ),
        Panel(
            "Instruments",
            "Instruments (a symbol at a venue) in the workers' state; beyond worker.max_symbols a partition, new ones "
            "are refused.",
            "none",
            (Query("sum(tapewatch_symbols_tracked)", "instruments", low=1, high=1e8),),
            kind="stat",
            width=6,
            height=5,
            alerts=("TapewatchRejects",),
        ),
        Panel(
            "Ticks",
            "Messages read from the topic of ticks, and those answered, a second.",
            "cps",
            (
                Query("max(tapewatch:ticks:rate1m)", "read", high=1e7),
                Query("max(tapewatch:ticks_accepted:rate1m)", "answered", high=1e7),
            ),
            alerts=("TapewatchFeedStale",),
        ),
        Panel(
            "Results",
            "Records that the broker has acknowledged, a second, by topic. Predictions, risk and actions equal the "
            "answered ticks.",
            "cps",
            (Query("max by (topic) (tapewatch:results:rate1m)", "{{topic}}", ("topic",), 0, 1e7),),
            alerts=("TapewatchNoProgress",),
        ),
        Panel(
            "Lag",
            "Ticks that are not read yet, by partition.",
            "none",
            (Query("sum by (partition) (tapewatch_lag_ticks)", "{{partition}}", ("partition",), 0, 1e9),),
            thresholds=((None, GREEN), (1000, YELLOW), (100_000, RED)),
            alerts=("TapewatchLag", "TapewatchNoProgress"),
        ),
        Panel(
            "Latency",
            "From the arrival of a chunk in the worker, and from the timestamp of the tick's record (whole "
            "milliseconds), to the broker's acknowledgement of the results.",
            "s",
            tuple(
                Query(
                    f"max(tapewatch:{name}_to_publish_seconds:{level}_1m)",
                    f"{name} {level}",
                    low=0,
                    high=5,
                    undefined=True,
                )
                for name in ("receive", "produce")
                for level in ("p50", "p99")
            ),
            thresholds=((None, GREEN), (0.025, YELLOW), (0.1, RED)),
            alerts=("TapewatchLatency",),
        ),
        Panel(
            "Latency from the venue",
            "From the venue's clock to the broker's acknowledgement, what 1 % exceed. It holds the way from the venue, "
            "and any difference of the clocks. At 5 s it is at its end: so is every replay of recorded ticks.",
            "s",
            (Query("max(tapewatch:event_to_publish_seconds:p99_1m)", "p99", low=0, high=5, undefined=True),),
            alerts=("TapewatchLatency",),
        ),
        Panel(
            "Time by stage",
            "What 1 % of the chunks exceed in each stage.",
            "s",
            (Query("max by (stage) (tapewatch:stage_seconds:p99_1m)", "{{stage}}", ("stage",), 0, 1, undefined=True),),
            thresholds=((None, GREEN), (0.1, RED)),
            alerts=("TapewatchLatency",),
        ),
        Panel(
            "Rejects by reason",
            "Messages refused, a second. They lie on ticks.rejected with their reason.",
            "cps",
            (Query("max by (reason) (tapewatch:rejects:rate5m)", "{{reason}}", ("reason",), 0, 1e7),),
            alerts=("TapewatchRejects", "TapewatchInternalErrors"),
        ),
        Panel(
            "Share refused",
            "Of the messages of the last five minutes.",
            "percentunit",
            (Query("max(tapewatch:rejects:ratio5m)", "refused", low=0, high=1),),
            decimals=2,
            thresholds=((None, GREEN), (0.01, RED)),
            alerts=("TapewatchRejects",),
        ),
        Panel(
            "Late ticks",
            "Ticks older than one before them, a second: used, with their time clamped.",
            "cps",
            (Query("sum(rate(tapewatch_ticks_late_total[5m]))", "late", low=0, high=1e7),),
            alerts=("TapewatchFeedFault",),
        ),
        Panel(
            "Trades that feeds missed",
            "Trade ids that a venue skipped, within ten minutes, by symbol; of each `tapewatch feed` that Prometheus "
            "scrapes. Some may have come later.",
            "none",
            (
                Query(
                    "sum by (symbol) (increase(tapewatch_feed_missing_total[10m]))",
                    "{{symbol}}",
                    ("symbol",),
                    high=1e6,
                ),
            ),
            thresholds=((None, GREEN), (1, ORANGE)),
            alerts=("TapewatchFeedGap",),
        ),
        Panel(
            "Chunk size",
            "Ticks handled together: median, and what 1 % of the chunks exceed. Large ones mean catching up.",
            "none",
            tuple(
                Query(
                    f"histogram_quantile({level}, sum by (le) (rate(tapewatch_chunk_ticks_bucket[1m])))",
                    name,
                    low=0,
                    high=8192,
                    undefined=True,
                )
                for level, name in ((0.5, "p50"), (0.99, "p99"))
            ),
            decimals=0,
            alerts=("TapewatchLag",),
        ),
        Panel(
            "Commit age",
            "Age of the oldest tick that is read and not committed, by worker. About the commit interval, 1 s.",
            "s",
            (Query("max by (instance) (tapewatch_commit_age_seconds)", "{{instance}}", ("instance",), 0, 30),),
            thresholds=((None, GREEN), (5, YELLOW), (10, RED)),
            alerts=("TapewatchCommitAge",),
        ),
        Panel(
            "Commits",
            "Commits of offsets a second, by worker. 0 while there is something to do is a worker that stands still.",
            "cps",
            (Query("sum by (instance) (rate(tapewatch_commits_total[1m]))", "{{instance}}", ("instance",), 0, 1000),),
            alerts=("TapewatchNoProgress",),
        ),
        Panel(
            "Snapshots",
            "Snapshots of instruments' state that were committed with their offsets, a second, by worker.",
            "cps",
            (Query("sum by (instance) (rate(tapewatch_snapshots_total[1m]))", "{{instance}}", ("instance",), 0, 1e6),),
            alerts=("TapewatchCommitAge",),
        ),
        Panel(
            "Recovery",
            "How long the loading of snapshots took at each worker's last assignment of partitions; no tick is read "
            "meanwhile.",
            "s",
            (Query("max by (instance) (tapewatch_recovery_seconds)", "{{instance}}", ("instance",), 0, 600),),
            thresholds=((None, GREEN), (10, YELLOW), (60, RED)),
            alerts=("TapewatchRestarts",),
        ),
        Panel(
            "Memory",
            "Memory of each worker that is in RAM.",
            "bytes",
            (Query("max by (instance) (tapewatch_resident_memory_bytes)", "{{instance}}", ("instance",), 1e6, 1e11),),
            thresholds=((None, GREEN), (2e9, YELLOW), (4e9, RED)),
            alerts=("TapewatchRestarts",),
        ),
    ),
    annotations='ALERTS{alertstate="firing", team="operator"}',
)

BOARDS: Final = (MARKET_RISK, SYMBOL, MODELS, OPERATIONS)
