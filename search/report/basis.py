"""What the page rests on: the table, what was repaired of it, the settings, the versions."""

from collections import Counter
from datetime import datetime

from search.report.evidence import Evidence
from search.report.parts import Part, Section, Table, Text, missing, plural


def data(evidence: Evidence) -> Section:
    """The table as it was understood, and its repairs."""
    anchor, title = "data", "The data and its repairs"
    facts = evidence.facts
    if not facts:
        return Section(anchor, title, [missing("The study was ended before it began.")])
    parts: list[Part] = [
        Text(
            f"{facts['data_name']}, {facts['num_rows']:,} rows to search on, from "
            f"{facts['data_source']}; fingerprint {facts['data_fingerprint'][:12]}."
        )
    ]
    if evidence.data_notes is None:
        parts.append(missing("This study was begun before repairs entered the record."))
    elif not evidence.data_notes:
        parts.append(missing("Nothing was noted of the table."))
    else:
        rows = [[note] for note in evidence.data_notes]
        caption = "What was understood of the table and what was repaired, in this order."
        parts.append(Table(caption, ("note",), rows))
    return Section(anchor, title, parts)


def settings(evidence: Evidence) -> Section:
    """Everything that the study was begun with."""
    facts = evidence.facts
    anchor, title = "settings", "Settings and versions"
    if not facts:
        return Section(anchor, title, [missing("The study was ended before it began.")])
    rows = [[name, value] for name, value in (facts["params"] | facts["tags"]).items()]
    caption = "What the study was begun with: the same settings on the same table repeat it."
    return Section(anchor, title, [Table(caption, ("setting", "value"), rows)])


def in_a_line(evidence: Evidence) -> str:
    """What was searched, when and how it ended."""
    counts = Counter(str(trial.state) for trial in evidence.trials)
    shown = ", ".join(f"{count} {state}" for state, count in counts.items()) or "none"
    began = ""
    if evidence.created_at is not None:
        began = f", begun {datetime.fromtimestamp(evidence.created_at):%Y-%m-%d %H:%M}"
    rejected = f"; {plural(evidence.num_rejected, 'proposal')} rejected"
    rejected = rejected if evidence.num_rejected else ""
    name = evidence.facts.get("data_name", "an unknown table")
    return (
        f"A search for the LSTM that forecasts {name} best{began} ({evidence.state}). "
        f"Trials: {shown}{rejected}."
    )
