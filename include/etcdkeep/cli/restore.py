"""``runbook`` and ``restore-leftovers``: a restore by hand, and what restores left behind."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from etcdkeep import naming
from etcdkeep.approval.answers import Rules
from etcdkeep.cli.common import find_set, open_cluster, repository_option
from etcdkeep.cli.output import json_option, print_json, print_table
from etcdkeep.errors import NotFound, RequestRefused, TransientError
from etcdkeep.plain_text import one_line
from etcdkeep.ports import PodRef
from etcdkeep.restore.authority import GATES
from etcdkeep.restore.engine import Engine
from etcdkeep.restore.form import WHAT
from etcdkeep.restore.found.members import doubtful
from etcdkeep.restore.found.nodes import FOLDER, LIST, run_base
from etcdkeep.restore.leftovers import (
    IN_PODS,
    ON_NODES,
    check_set_aside,
    find_in_pod,
    release_node,
    removal_argv,
    remove_leftovers,
)
from etcdkeep.restore.options import Options
from etcdkeep.restore.plan.release import plan_release
from etcdkeep.restore.prepare import prepare_restore
from etcdkeep.restore.probe.nodes import gather_node, restore_nodes
from etcdkeep.restore.probe.pods import gather_pods
from etcdkeep.restore.proposal import proposed_plan
from etcdkeep.restore.record import RestoreRecord
from etcdkeep.restore.runbook import render_runbook, rollback_script
from etcdkeep.say import say
from etcdkeep.sets.backup_set import USABLE
from etcdkeep.sets.choosing import choose_set, manifest_of
from etcdkeep.site.restore_world import open_world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from etcdkeep.ports import CommandRunner
    from etcdkeep.restore.found.nodes import EarlierRun
    from etcdkeep.restore.options import What
    from etcdkeep.sets.backup_set import BackupSet
    from etcdkeep.site.site import Site


@click.command()
@click.argument("cluster")
@click.argument("backup", required=False)
@repository_option
@click.option(
    "--what", type=click.Choice(list(WHAT)), help="What to restore. Default: both; for a kubeception cluster: etcd."
)
@click.option(
    "--way",
    type=click.Choice(["auto", "kubelet", "manifests"]),
    default="auto",
    show_default=True,
    help="How to stop the control plane: stop the kubelet (seconds of downtime), or park the manifests; auto: kubelet where possible.",
)
@click.option("--no-bump", is_flag=True, help="Do not raise revisions. Clients may then keep stale caches.")
@click.option("--override", is_flag=True, help="Print the runbook even if overridable problems exist.")
@click.option(
    "--begun",
    metavar="RESTORE",
    help="Print the recorded plan of a restore that was begun: to finish it by hand, or to roll it back.",
)
def runbook(
    cluster: str, backup: str | None, what: str | None, way: str, no_bump: bool, override: bool, begun: str | None
) -> None:
    """
    Print the restore of CLUSTER from BACKUP (default: its newest good one) as shell lines with real values, for a person
    with the files of `unseal`. Looks at the nodes; changes nothing. The cluster's API may be down, and Airflow gone.
    """
    if begun is not None:
        say(_runbook_of(cluster, begun, override=override), nl=False)
        return
    site = open_cluster(cluster)
    found = choose_set(site.repository, cluster, backup or "")
    manifest_of(found)
    site = site.with_keys_of(found)
    now = datetime.now(UTC)
    run = naming.restore_id(cluster, now, f"runbook {now.isoformat()}")
    chosen: tuple[What, ...] = (
        WHAT[what] if what else WHAT["etcd+pki" if site.cluster.control_plane.has_nodes else "etcd"]
    )
    options = Options(run, now, chosen, "manifests" if way == "manifests" else "kubelet", not no_bump)
    locked_by = RestoreRecord(site.repository.records, cluster, run).locked_by()
    ready = prepare_restore(
        site, found, options, site.identities(), now=now, choose_way=way == "auto", locked_by=locked_by
    )
    plan = ready.plan_to_approve(cluster, override=override)
    for finding in ready.findings:
        say(one_line(f"{finding.severity}: {finding.sentence}"), err=True)
    say(render_runbook(plan, site.ssh, ready.findings), nl=False)


def _runbook_of(cluster: str, restore: str, *, override: bool) -> str:
    """A restore that was begun is gone on with by its own plan: a new one would set aside what the first had put in place."""
    site = open_cluster(cluster)
    record = RestoreRecord(site.repository.records, cluster, restore)
    begun = record.begun()
    if begun is None:
        raise NotFound(
            f"no restore {restore!r} of cluster {cluster!r} was begun: {record.folder} of {site.repository.store.url} has no signed record "
            "of it. To finish one that was begun by hand, use its own printed page."
        )
    if (end := record.end()) is not None:
        words = f"restore {restore!r} has ended: {end.words}"
        if not override:
            raise RequestRefused(
                f"{words} Do not run its steps again. To go back, start a new restore. To see the page anyway, add --override."
            )
        say(one_line(f"warning: {words}"), err=True)
    proposal = record.proposal_of(begun.body.proposal)
    record.gates.check(proposal, Rules(GATES), ever=True)
    return render_runbook(proposed_plan(proposal), site.ssh)


@click.command("restore-leftovers")
@click.argument("cluster")
@click.option("--remove", "run", metavar="RUN", help="Remove permanently what this restore set aside, at every place.")
@click.option("--release", metavar="RUN", help="Release the places that this unfinished restore holds.")
@click.option("--yes", is_flag=True, help="With --remove and --release: do not ask.")
@json_option
def restore_leftovers(cluster: str, run: str | None, release: str | None, yes: bool, as_json: bool) -> None:
    """
    List what restores of CLUSTER set aside. Nothing is removed or released unless asked for by name, and confirmed.
    """
    site, found = _newest_that_names_its_places(cluster)
    if release is not None:
        if not yes:
            click.confirm(f"Release {cluster} from restore {release}? It cannot continue after that.", abort=True)
        RestoreRecord(site.repository.records, cluster, release).release()
        for place, folder in _released(site, found, release):
            say(f"{place}: released {folder}")
        return
    left = {place: leftovers for place, _, leftovers in _places(site, found)}
    if run is None:
        _show(left, as_json=as_json)
        return
    chosen = [each for folders in left.values() for each in folders if each.run == run]
    if not chosen:
        raise NotFound(
            f"restore {run!r} left nothing of {cluster!r}. List what is left: `python -m etcdkeep restore-leftovers {cluster}`."
        )
    for each in chosen:
        removal_argv(each)
    if not yes:
        click.confirm(
            f"Remove {len(chosen)} folder(s) of restore {run} with the old state of {cluster}? It cannot be rolled back after that.",
            abort=True,
        )
    command = ON_NODES if site.cluster.control_plane.has_nodes else IN_PODS
    for place, runner, leftovers in _places(site, found):
        for folder in remove_leftovers(runner, leftovers, run, command):
            say(f"{place}: removed {folder}")


def _newest_that_names_its_places(cluster: str) -> tuple[Site, BackupSet]:
    """Return the site and the newest set whose manifest is believed: it says on which nodes or pods restores leave something."""
    try:
        return find_set(cluster, USABLE)
    except NotFound as err:
        raise NotFound(
            f"cannot tell what restores of cluster {cluster!r} left: only a backup says which nodes or pods to search. {err} To search "
            f"by hand: the folders are called {FOLDER}; they are beside etcd's data and the PKI, or in them where these are mount points."
        ) from err


def _released(site: Site, found: BackupSet, run: str) -> Iterator[tuple[str, str]]:
    """Release every place that an unfinished restore holds, and yield place and folder."""
    manifest = manifest_of(found)
    if not site.cluster.control_plane.has_nodes:
        facts = gather_pods(site.api, site.cluster, manifest)
        plan = plan_release(site.cluster, manifest, facts, Options(run, datetime.now(UTC), ("etcd",)))
        with open_world(site, plan, found) as world:
            by_hand = partial(rollback_script, ssh=site.ssh)
            Engine(plan, world, by_hand=by_hand, unreachable_s=site.cluster.limits.unreachable_s).roll_back()
        makers = {step.name for step in plan.steps}
        yield from ((place.name, place.folder) for place in plan.places if place.made_by in makers)
        return
    for _, shell, left in _places(site, found):
        check_set_aside(shell, left, run)
    released = [
        (place, folder) for place, shell, left in _places(site, found) for folder in release_node(shell, left, run)
    ]
    if not released:
        raise NotFound(
            f"restore {run!r} holds no node of {site.cluster.name!r}. List what restores left: `{LIST} {site.cluster.name}`."
        )
    yield from released


def _places(site: Site, found: BackupSet) -> Iterator[tuple[str, CommandRunner, tuple[EarlierRun, ...]]]:
    """Yield each node, or each pod of a kubeception cluster's etcd, with what restores left there."""
    cluster, manifest = site.cluster, manifest_of(found)
    if cluster.control_plane.has_nodes:
        sure = {member.node for member in manifest.members if not doubtful(member)}
        for node, address in restore_nodes(cluster, manifest).items():
            try:
                with site.open_node(address) as shell:
                    yield node, shell, gather_node(shell, cluster, node, address).earlier
            except TransientError as err:
                if node in sure:
                    raise
                say(f"node {node} was not checked, its member did not work at the backup: {err}", err=True)
        return
    facts = gather_pods(site.api, cluster, manifest)
    for member in facts.members:
        runner = site.api.exec(PodRef(cluster.namespace, member.pod, cluster.control_plane.container))
        yield member.pod, runner, find_in_pod(runner, run_base(facts.data_dir, (facts.mount,)))


def _show(left: dict[str, tuple[EarlierRun, ...]], *, as_json: bool) -> None:
    rows = [(node, each.run, each.state, each.folder) for node, folders in left.items() for each in folders]
    if as_json:
        print_json([dict(zip(("node", "restore", "state", "folder"), row, strict=True)) for row in rows])
    elif rows:
        print_table(("node", "restore", "state", "folder"), rows)
    else:
        say("nothing was left by restores")
