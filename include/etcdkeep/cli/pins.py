"""``pin``, ``unpin``: sets that a person wants kept."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from etcdkeep import naming
from etcdkeep.cli.common import open_cluster, who
from etcdkeep.plain_text import one_line
from etcdkeep.say import say
from etcdkeep.sets.backup_set import USABLE
from etcdkeep.sets.choosing import choose_set
from etcdkeep.sets.pins import Pin


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """Read a day or a time, UTC where no zone is given."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError as err:
        raise click.BadParameter(
            f"{value!r} is not a time. Expected a day or a time, such as 2026-12-31 or 2026-12-31T18:00:00+01:00."
        ) from err
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@click.command()
@click.argument("name", metavar="CLUSTER/ID")
@click.option("--reason", required=True, help="Why it is kept, for the record.")
@click.option("--until", metavar="TIME", callback=_moment, help="When the pin ends by itself: a day or a time, UTC.")
def pin(name: str, reason: str, until: datetime | None) -> None:
    """Keep a backup, whatever the rules of retention say. The pin is signed (signing.verify.key) and stored with it."""
    if until is not None and until <= datetime.now(UTC):
        raise click.UsageError(f"--until {until:%Y-%m-%d %H:%M} is in the past.")
    _record(name, Pin(pinned=True, reason=_words(reason), by=who(), until=until))
    say(f"{name}: pinned{f' until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC' if until else ''}")


@click.command()
@click.argument("name", metavar="CLUSTER/ID")
@click.option("--reason", required=True, help="Why it is no longer kept, for the record.")
def unpin(name: str, reason: str) -> None:
    """End the pin of a backup: the rules of retention decide about it again."""
    _record(name, Pin(pinned=False, reason=_words(reason), by=who()))
    say(f"{name}: not pinned any more")


def _words(reason: str) -> str:
    words = one_line(reason).strip()
    if not words:
        raise click.UsageError("--reason is empty.")
    return words


def _record(name: str, pin: Pin) -> None:
    cluster, identifier = naming.parse_set_name(name)
    site = open_cluster(cluster)
    found = choose_set(site.repository, cluster, identifier, allow=USABLE)
    site.repository.record_pin(found, pin)
